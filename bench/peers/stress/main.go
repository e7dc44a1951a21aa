// Members of consumer groups that join, leave, crash and stall at random, and a judge that watches what the broker
// makes of it. The members are franz-go's, unmodified: what crashes and stalls is the network under them.
//
// Judged, all the time:
//   - one owner: of no group's description, and of no two members that know of one generation, do two own one partition;
//   - commits: what is stored is never below what was acknowledged, whatever was killed in between.
//
// And at the end, when the changes have stopped: every partition of every group with members has its one owner, and the
// members say the same as the broker does.
//
// Prints one JSON object; exit code 1 when something was violated, 2 when it could not be tried.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"net"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	sessionTimeout   = 6 * time.Second
	rebalanceTimeout = 15 * time.Second
	heartbeatEvery   = 1500 * time.Millisecond
	commitEvery      = time.Second
	violationsShown  = 20
	describedAtOnce  = 25
	smallMembersMax  = 3
)

var (
	broker  = flag.String("broker", "127.0.0.1:9092", "HOST:PORT")
	groups  = flag.Int("groups", 1000, "groups in all")
	largest = flag.Int("largest", 100, "members of the largest group")
	during  = flag.Duration("time", 10*time.Minute, "how long members come and go")
	settle  = flag.Duration("settle", 3*time.Minute, "how long the groups may take to come to rest afterwards")
	rate    = flag.Float64("changes", 15, "changes per second over all groups")
	seed    = flag.Int64("seed", 1, "of the changes")
)

// Partitions of the topic of the largest group, and of all others'.
const (
	wideTopic, widePartitions   = "stress-wide", 128
	smallTopic, smallPartitions = "stress-small", 4
)

type counts struct {
	Joins, Leaves, Crashes, Stalls, StaticReturns     atomic.Int64
	Assignments, CommitsAcked, CommitsRefused         atomic.Int64
	Descriptions, StableSeen, OffsetChecks, Unreached atomic.Int64
}

var (
	did        counts
	judgement  sync.Mutex
	violations []string
	violated   int
)

func violation(format string, args ...any) {
	judgement.Lock()
	defer judgement.Unlock()
	if violated++; len(violations) < violationsShown {
		violations = append(violations, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// The network under one member: it can be cut for good, or held for a while.
type network struct {
	mu    sync.Mutex
	cut   bool
	held  chan struct{}
	conns map[*wire]struct{}
}

type wire struct {
	net.Conn
	under *network
}

func (n *network) wait() error {
	n.mu.Lock()
	held, cut := n.held, n.cut
	n.mu.Unlock()
	if held != nil {
		<-held
	}
	if cut {
		return net.ErrClosed
	}
	return nil
}

func (n *network) dial(ctx context.Context, _, host string) (net.Conn, error) {
	if err := n.wait(); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	w := &wire{conn, n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		conn.Close()
		return nil, net.ErrClosed
	}
	n.conns[w] = struct{}{}
	return w, nil
}

func (w *wire) Read(b []byte) (int, error) {
	read, err := w.Conn.Read(b)
	if gone := w.under.wait(); gone != nil {
		return 0, gone
	}
	return read, err
}

func (w *wire) Write(b []byte) (int, error) {
	if err := w.under.wait(); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

func (w *wire) Close() error {
	w.under.mu.Lock()
	delete(w.under.conns, w)
	w.under.mu.Unlock()
	return w.Conn.Close()
}

func (n *network) crash() {
	n.mu.Lock()
	n.cut = true
	conns := n.conns
	n.conns = map[*wire]struct{}{}
	n.mu.Unlock()
	for w := range conns {
		w.Conn.Close()
	}
}

func (n *network) stall(away time.Duration) {
	held := make(chan struct{})
	n.mu.Lock()
	n.held = held
	n.mu.Unlock()
	time.AfterFunc(away, func() {
		n.mu.Lock()
		n.held = nil
		n.mu.Unlock()
		close(held)
	})
}

// A group as its members and its commits show it.
type group struct {
	name       string
	topic      string
	partitions int32
	membersMax int
	balancer   kgo.GroupBalancer
	isConsumer bool // the consumer protocol, KIP-848
	isMixed    bool // members of both protocols: it goes over and back as they come and go
	isStatic   bool

	mu      sync.Mutex
	members []*member
	owners  map[int32]*member
	acked   map[int32]int64
	next    atomic.Int64 // what is committed next: values only grow
}

type member struct {
	group    *group
	client   *kgo.Client
	net      *network
	instance string
	stop     context.CancelFunc
	gone     atomic.Bool
	synced   atomic.Int32 // the generation that confirmed what it owns
}

func (m *member) generation() int32 {
	_, generation := m.client.GroupMetadata()
	return generation
}

func (g *group) assigned(m *member, partitions []int32) {
	did.Assignments.Add(int64(len(partitions)))
	generation := m.generation()
	m.synced.Store(generation)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range partitions {
		other := g.owners[p]
		// A member that was away learns of a later generation only when it is back: it is then told that its own is over.
		// One that joined and was given no assignment yet owns nothing in that generation: its number is not stored before
		// the assignments are, and may be given again after a crash, as Kafka's.
		if other != nil && other != m && !other.gone.Load() && other.synced.Load() == generation && !g.isConsumer && !g.isMixed {
			violation("%s: partition %d has two owners in generation %d", g.name, p, generation)
		}
		g.owners[p] = m
	}
}

func (g *group) revoked(m *member, partitions []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range partitions {
		if g.owners[p] == m {
			delete(g.owners, p)
		}
	}
}

func (g *group) join(instance string) error {
	m := &member{group: g, net: &network{conns: map[*wire]struct{}{}}, instance: instance}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	if g.isConsumer || (g.isMixed && rand.Intn(2) == 0) {
		//lint:ignore SA1029 the client looks for this very key
		ctx = context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)
	}
	owns := func(take func(*member, []int32)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, client *kgo.Client, topics map[string][]int32) {
			m.client = client
			take(m, topics[g.topic])
		}
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(*broker), kgo.WithContext(ctx), kgo.Dialer(m.net.dial), kgo.ConsumerGroup(g.name),
		kgo.ConsumeTopics(g.topic), kgo.Balancers(g.balancer), kgo.SessionTimeout(sessionTimeout),
		kgo.RebalanceTimeout(rebalanceTimeout), kgo.HeartbeatInterval(heartbeatEvery), kgo.DisableAutoCommit(),
		// Later versions of OffsetCommit name topics by their ids.
		kgo.MaxVersions(kversion.V4_0_0()), kgo.FetchMaxWait(20 * time.Second), kgo.MetadataMaxAge(time.Minute), kgo.RetryTimeout(rebalanceTimeout),
		kgo.OnPartitionsAssigned(owns(g.assigned)), kgo.OnPartitionsRevoked(owns(g.revoked)), kgo.OnPartitionsLost(owns(g.revoked)),
	}
	if instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		stop()
		return err
	}
	m.client = client
	g.mu.Lock()
	g.members = append(g.members, m)
	g.mu.Unlock()
	did.Joins.Add(1)
	go m.commits(ctx)
	return nil
}

// Commits a growing offset for whatever the member owns, and remembers what was acknowledged. The client's own commit
// waits while the group rebalances and then goes out under the new generation, whoever owns the partition by then; here
// a commit belongs to the generation that was known before the partition was seen to be the member's.
func (m *member) commits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(commitEvery/2 + time.Duration(rand.Int63n(int64(commitEvery)))):
		}
		g := m.group
		request := kmsg.NewPtrOffsetCommitRequest()
		request.Group = g.name
		request.MemberID, request.Generation = m.client.GroupMetadata()
		if m.instance != "" {
			request.InstanceID = &m.instance
		}
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = g.topic
		offsets := map[int32]int64{}
		g.mu.Lock()
		for p, owner := range g.owners {
			if owner == m {
				offset := kmsg.NewOffsetCommitRequestTopicPartition()
				offset.Partition, offset.Offset = p, g.next.Add(1)
				topic.Partitions = append(topic.Partitions, offset)
				offsets[p] = offset.Offset
			}
		}
		g.mu.Unlock()
		if len(offsets) == 0 {
			continue
		}
		request.Topics = append(request.Topics, topic)
		answer, err := request.RequestWith(ctx, m.client)
		if err != nil {
			did.Unreached.Add(1)
			continue
		}
		for _, topic := range answer.Topics {
			for _, p := range topic.Partitions {
				if p.ErrorCode != 0 {
					did.CommitsRefused.Add(1)
					continue
				}
				did.CommitsAcked.Add(1)
				g.mu.Lock()
				g.acked[p.Partition] = max(g.acked[p.Partition], offsets[p.Partition])
				g.mu.Unlock()
			}
		}
	}
}

// Ends the member; `crashes` tells the broker nothing.
func (m *member) end(crashes bool) {
	m.group.mu.Lock()
	members := m.group.members[:0]
	for _, other := range m.group.members {
		if other != m {
			members = append(members, other)
		}
	}
	m.group.members = members
	m.group.mu.Unlock()
	if crashes {
		m.gone.Store(true)
		m.net.crash()
		m.stop()
	}
	go func() {
		m.client.CloseAllowingRebalance()
		m.gone.Store(true)
		m.stop()
		all := make([]int32, m.group.partitions)
		for p := range all {
			all[p] = int32(p)
		}
		m.group.revoked(m, all)
	}()
}

// One change somewhere: whoever is picked joins, leaves, crashes or stalls.
func change(random *rand.Rand, all []*group) error {
	g := all[random.Intn(len(all))]
	if random.Intn(5) == 0 {
		g = all[0]
	}
	g.mu.Lock()
	count := len(g.members)
	var m *member
	if count > 0 {
		m = g.members[random.Intn(count)]
	}
	g.mu.Unlock()
	switch what := random.Intn(10); {
	case m == nil || (what < 5 && count < g.membersMax):
		return g.join(instanceOf(g))
	case what < 7:
		did.Leaves.Add(1)
		m.end(false)
	case what == 7:
		did.Crashes.Add(1)
		m.end(true)
		if m.instance != "" {
			did.StaticReturns.Add(1)
			return g.join(m.instance)
		}
	default:
		did.Stalls.Add(1)
		away := sessionTimeout/2 + time.Duration(random.Int63n(int64(sessionTimeout)))
		m.net.stall(away)
	}
	return nil
}

// Static members take the lowest place that is free, so that one comes back under its name.
func instanceOf(g *group) string {
	if !g.isStatic {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := map[string]bool{}
	for _, m := range g.members {
		taken[m.instance] = true
	}
	for at := 0; ; at++ {
		if name := fmt.Sprintf("%s-%d", g.name, at); !taken[name] {
			return name
		}
	}
}

// What the broker says of a group: who owns what, by member id.
type description struct {
	stable   bool
	consumer bool // as a group of the consumer protocol
	members  int
	owners   map[int32][]string
}

func describe(ctx context.Context, judge *kgo.Client, some []*group) (map[*group]description, error) {
	byName := map[string]*group{}
	classic := kmsg.NewPtrDescribeGroupsRequest()
	consumer := kmsg.NewPtrConsumerGroupDescribeRequest()
	for _, g := range some {
		byName[g.name] = g
		if g.isConsumer || g.isMixed {
			consumer.Groups = append(consumer.Groups, g.name)
		}
		if !g.isConsumer {
			classic.Groups = append(classic.Groups, g.name)
		}
	}
	found := map[*group]description{}
	if len(classic.Groups) > 0 {
		for _, shard := range judge.RequestSharded(ctx, classic) {
			if shard.Err != nil {
				return nil, shard.Err
			}
			for _, d := range shard.Resp.(*kmsg.DescribeGroupsResponse).Groups {
				if d.ErrorCode != 0 || (d.State == "Dead" && byName[d.Group].isMixed) {
					continue
				}
				says := description{stable: d.State == "Stable", members: len(d.Members), owners: map[int32][]string{}}
				for _, m := range d.Members {
					var assigned kmsg.ConsumerMemberAssignment
					if len(m.MemberAssignment) > 0 && assigned.ReadFrom(m.MemberAssignment) != nil {
						violation("%s: an assignment of %d bytes that nobody can read", d.Group, len(m.MemberAssignment))
					}
					for _, topic := range assigned.Topics {
						for _, p := range topic.Partitions {
							says.owners[p] = append(says.owners[p], m.MemberID)
						}
					}
				}
				found[byName[d.Group]] = says
			}
		}
	}
	if len(consumer.Groups) > 0 {
		for _, shard := range judge.RequestSharded(ctx, consumer) {
			if shard.Err != nil {
				return nil, shard.Err
			}
			for _, d := range shard.Resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
				if d.ErrorCode != 0 {
					continue
				}
				says := description{stable: d.State == "Stable", consumer: true, members: len(d.Members), owners: map[int32][]string{}}
				for _, m := range d.Members {
					for _, topic := range m.Assignment.TopicPartitions {
						for _, p := range topic.Partitions {
							says.owners[p] = append(says.owners[p], m.MemberID)
						}
					}
				}
				found[byName[d.Group]] = says
			}
		}
	}
	return found, nil
}

// Stored offsets of a group against what had been acknowledged before they were asked for.
func checkOffsets(ctx context.Context, judge *kgo.Client, g *group) {
	g.mu.Lock()
	acked := map[int32]int64{}
	for p, offset := range g.acked {
		acked[p] = offset
	}
	g.mu.Unlock()
	if len(acked) == 0 {
		return
	}
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group, request.RequireStable = g.name, true
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group = g.name
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic = g.topic
	for p := range acked {
		topic.Partitions = append(topic.Partitions, p)
	}
	asked.Topics = append(asked.Topics, topic)
	request.Groups = append(request.Groups, asked)
	for _, shard := range judge.RequestSharded(ctx, request) {
		if shard.Err != nil {
			did.Unreached.Add(1)
			continue
		}
		for _, answer := range shard.Resp.(*kmsg.OffsetFetchResponse).Groups {
			if answer.ErrorCode != 0 {
				did.Unreached.Add(1)
				continue
			}
			for _, topic := range answer.Topics {
				for _, p := range topic.Partitions {
					did.OffsetChecks.Add(1)
					if p.ErrorCode == 0 && p.Offset < acked[p.Partition] {
						violation("%s: partition %d has offset %d stored; %d was acknowledged before", g.name, p.Partition, p.Offset, acked[p.Partition])
						g.mu.Lock()
						g.acked[p.Partition] = p.Offset // said once
						g.mu.Unlock()
					}
				}
			}
		}
	}
}

func judgeNow(ctx context.Context, judge *kgo.Client, some []*group) {
	found, err := describe(ctx, judge, some)
	if err != nil {
		did.Unreached.Add(1)
		return
	}
	for g, says := range found {
		did.Descriptions.Add(1)
		if says.stable {
			did.StableSeen.Add(1)
		} else if !says.consumer {
			continue // what it says between two generations is of neither
		}
		for p, owners := range says.owners {
			if len(owners) > 1 {
				violation("%s: the broker says that partition %d is owned by %v", g.name, p, owners)
			}
		}
	}
	for _, g := range some {
		checkOffsets(ctx, judge, g)
	}
}

// Groups that are not at rest as they should be, and why.
func unsettled(ctx context.Context, judge *kgo.Client, all []*group) []string {
	var why []string
	for from := 0; from < len(all); from += describedAtOnce {
		some := all[from:min(from+describedAtOnce, len(all))]
		found, err := describe(ctx, judge, some)
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		for _, g := range some {
			why = append(why, notAtRest(g, found[g])...)
		}
	}
	sort.Strings(why)
	return why
}

func notAtRest(g *group, says description) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if says.members != len(g.members) {
		return []string{fmt.Sprintf("%s: %d members, the broker says %d", g.name, len(g.members), says.members)}
	}
	if len(g.members) == 0 {
		return nil
	}
	if !says.stable {
		return []string{g.name + ": not stable"}
	}
	for p := int32(0); p < g.partitions; p++ {
		if len(says.owners[p]) != 1 {
			return []string{fmt.Sprintf("%s: partition %d has %d owners", g.name, p, len(says.owners[p]))}
		}
		owner := g.owners[p]
		if owner == nil {
			return []string{fmt.Sprintf("%s: no member says that it owns partition %d", g.name, p)}
		}
		if id, _ := owner.client.GroupMetadata(); id != says.owners[p][0] {
			return []string{fmt.Sprintf("%s: partition %d: the broker and a member disagree", g.name, p)}
		}
	}
	return nil
}

func topic(ctx context.Context, judge *kgo.Client, name string, partitions int32) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 30000
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = name, partitions, 1
	request.Topics = append(request.Topics, asked)
	_, err := request.RequestWith(ctx, judge)
	return err
}

func newGroup(at int) *group {
	g := &group{name: fmt.Sprintf("stress-%d", at), topic: smallTopic, partitions: smallPartitions, membersMax: smallMembersMax,
		owners: map[int32]*member{}, acked: map[int32]int64{}}
	balancers := []kgo.GroupBalancer{kgo.CooperativeStickyBalancer(), kgo.RangeBalancer(), kgo.StickyBalancer(), kgo.RoundRobinBalancer()}
	g.balancer = balancers[at%len(balancers)]
	if at == 0 {
		g.topic, g.partitions, g.membersMax = wideTopic, widePartitions, *largest
	} else if at%10 == 8 {
		g.isMixed, g.balancer = true, kgo.RangeBalancer()
	} else if at%5 == 3 {
		g.isConsumer, g.balancer = true, kgo.RangeBalancer()
	} else if at%7 == 2 {
		g.isStatic = true
	}
	return g
}

func run() error {
	ctx := context.Background()
	judge, err := kgo.NewClient(kgo.SeedBrokers(*broker), kgo.RetryTimeout(time.Minute))
	if err != nil {
		return err
	}
	defer judge.Close()
	if err := topic(ctx, judge, wideTopic, widePartitions); err != nil {
		return err
	}
	if err := topic(ctx, judge, smallTopic, smallPartitions); err != nil {
		return err
	}
	random := rand.New(rand.NewSource(*seed))
	var all []*group
	for at := 0; at < *groups; at++ {
		g := newGroup(at)
		all = append(all, g)
		for count := 1 + (g.membersMax-1)*(at&1); count > 0; count-- {
			if err := g.join(instanceOf(g)); err != nil {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond) // as many processes start, not all in one instant
	}
	for count := 1; count < all[0].membersMax; count++ {
		if err := all[0].join(""); err != nil {
			return err
		}
	}
	began := time.Now()
	changes := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	defer changes.Stop()
	judged := make(chan struct{})
	stop, stopped := context.WithTimeout(ctx, *during)
	defer stopped()
	go func() {
		defer close(judged)
		for at := 0; stop.Err() == nil; at = (at + describedAtOnce) % len(all) {
			judgeNow(stop, judge, append([]*group{all[0]}, all[at:min(at+describedAtOnce, len(all))]...))
			time.Sleep(100 * time.Millisecond)
		}
	}()
	report := time.NewTicker(10 * time.Second)
	defer report.Stop()
	for stop.Err() == nil {
		select {
		case <-stop.Done():
		case <-report.C:
			fmt.Fprintf(os.Stderr, "%3.0f s: %d joins, %d leaves, %d crashes, %d stalls, %d commits acknowledged, %d violations\n", time.Since(began).Seconds(),
				did.Joins.Load(), did.Leaves.Load(), did.Crashes.Load(), did.Stalls.Load(), did.CommitsAcked.Load(), violated)
		case <-changes.C:
			if err := change(random, all); err != nil {
				return err
			}
		}
	}
	<-judged
	atRest := time.Now()
	var why []string
	for time.Since(atRest) < *settle {
		if why = unsettled(ctx, judge, all); len(why) == 0 {
			break
		}
		fmt.Fprintf(os.Stderr, "%d groups are not at rest, the first: %s\n", len(why), why[0])
		time.Sleep(3 * time.Second)
	}
	for _, w := range why {
		violation("at rest: %s", w)
	}
	settled := time.Since(atRest).Seconds()
	for _, g := range all {
		checkOffsets(ctx, judge, g)
	}
	members := 0
	for _, g := range all {
		members += len(g.members)
	}
	judgement.Lock()
	defer judgement.Unlock()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"groups": len(all), "members_at_the_end": members, "members_of_the_largest": len(all[0].members), "seconds": during.Seconds(),
		"settled_after_seconds": settled, "joins": did.Joins.Load(), "leaves": did.Leaves.Load(), "crashes": did.Crashes.Load(),
		"stalls": did.Stalls.Load(), "static_returns": did.StaticReturns.Load(), "partitions_assigned": did.Assignments.Load(),
		"offsets_acknowledged": did.CommitsAcked.Load(), "offsets_refused": did.CommitsRefused.Load(), "offsets_checked": did.OffsetChecks.Load(),
		"descriptions": did.Descriptions.Load(), "descriptions_stable": did.StableSeen.Load(), "requests_unanswered": did.Unreached.Load(),
		"violations": violated, "first_violations": violations,
	})
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if violated > 0 {
		os.Exit(1)
	}
}
