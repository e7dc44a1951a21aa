#!/usr/bin/env bash
# Kafka 4.3.1's own command-line tools against one broker, as a transcript: `$ command`, then what it printed.
#   tools.sh setup        fetch only (needs java 17+ and mvn)
#   tools.sh HOST:PORT    run on a new broker with num.partitions=4; print the transcript
# Ids, times, sizes and the address are replaced by words; lines whose order means nothing are sorted.
set -u; export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
[ $# -eq 1 ] || { sed -n 2,6p "$0" >&2; exit 2; }
if [ "$1" = setup ]; then exec bench/peers/kafka.sh setup >&2; fi
at=$1; cp=$(bench/peers/kafka.sh cp) || exit 1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
java_() { timeout -k 5 60 java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$cp" "$@" 2>&1; }
class() {
  case $1 in
    kafka-topics) echo org.apache.kafka.tools.TopicCommand ;;
    kafka-configs) echo kafka.admin.ConfigCommand ;;
    kafka-consumer-groups) echo org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    kafka-delete-records) echo org.apache.kafka.tools.DeleteRecordsCommand ;;
    kafka-log-dirs) echo org.apache.kafka.tools.LogDirsCommand ;;
    kafka-get-offsets) echo org.apache.kafka.tools.GetOffsetShell ;;
    kafka-leader-election) echo org.apache.kafka.tools.LeaderElectionCommand ;;
    kafka-broker-api-versions) echo org.apache.kafka.tools.BrokerApiVersionsCommand ;;
    kafka-features) echo org.apache.kafka.tools.FeatureCommand ;;
    kafka-groups) echo org.apache.kafka.tools.GroupsCommand ;;
    kafka-cluster) echo org.apache.kafka.tools.ClusterTool ;;
    kafka-client-metrics) echo org.apache.kafka.tools.ClientMetricsCommand ;;
    kafka-transactions) echo org.apache.kafka.tools.TransactionsCommand ;;
    *) echo "tools.sh knows no $1" >&2; exit 1 ;;
  esac
}
# What no two runs have in common.
plain() {
  sed -E -e "s|${at//./\\.}|ADDRESS|g; s|$work|WORK|g; s|127.0.0.1 ${at##*:}|HOST PORT|" \
    -e 's/TopicId: [A-Za-z0-9_-]{22}/TopicId: ID/g; s/(ClusterId|Cluster ID): .*/\1: ID/; s/Epoch: [0-9]+/Epoch: N/' \
    -e 's/"(size|logDir|totalBytes|usableBytes)":("[^"]*"|-?[0-9]+)/"\1":X/g; s/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:,.]+Z?/TIME/g' \
    -e 's/(console-consumer|consumer)-[a-z0-9-]{20,}/MEMBER/g; s/[[:space:]]+$//; s/[[:space:]]{2,}/  /g' \
    -e 's/, session timed out[^.]*//' | grep -v '^SLF4J\|^WARNING: \|^$'
}
# run [sorted|list] TOOL ARG…: `sorted` for lines in no order, `list` for items between commas in no order as well
run() {
  local order=as-is
  case $1 in sorted | list) order=$1; shift ;; esac
  local tool=$1 main; shift; main=$(class "$tool") || exit 1
  echo "\$ $tool${*:+ $*}" | sed -E "s|$work|WORK|g"
  local option=--bootstrap-server
  [ "$tool" = kafka-cluster ] && { set -- "$@" $option "$at"; option=; }
  { if [ -n "$option" ]; then java_ "$main" $option "$at" "$@"; else java_ "$main" "$@"; fi; echo "exit $?"; } >"$work/out"
  case $order in
    sorted) plain <"$work/out" | sort ;;
    list) plain <"$work/out" | sed -E 's/, /\n/g' | sort ;;
    *) plain <"$work/out" ;;
  esac
}
produce() { # TOPIC LINES of `key:value`
  seq "$2" | sed 's/.*/k&:v&/' | java_ org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$at" --topic "$1" \
    --reader-property parse.key=true --reader-property key.separator=: >/dev/null
}
consume() { # TOPIC GROUP COUNT
  java_ org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$at" --topic "$1" --group "$2" --from-beginning \
    --max-messages "$3" --command-property auto.offset.reset=earliest >/dev/null
}

run kafka-topics --create --topic orders --partitions 3 --replication-factor 1 --config retention.ms=86400000
run kafka-topics --create --topic orders --partitions 3
run kafka-topics --create --topic 'bad/name' --partitions 1
run kafka-topics --create --topic orders2 --partitions 1 --replication-factor 3
run kafka-topics --create --topic plain
run kafka-topics --create --topic squeezed --partitions 1 --config cleanup.policy=compact
run kafka-topics --create --topic wrong --config no.such.config=1
run sorted kafka-topics --list
run kafka-topics --describe --topic orders
run kafka-topics --describe --topic nothere
run kafka-topics --alter --topic orders --partitions 4
run kafka-topics --alter --topic orders --partitions 2
run kafka-topics --describe --topic orders
run kafka-topics --describe --under-replicated-partitions
produce orders 40
run kafka-get-offsets --topic orders
run kafka-get-offsets --topic orders --time earliest
run kafka-get-offsets --topic nothere
run kafka-configs --describe --entity-type topics --entity-name orders
run kafka-configs --alter --entity-type topics --entity-name orders --add-config max.message.bytes=2000000,compression.type=producer
run kafka-configs --describe --entity-type topics --entity-name orders
run kafka-configs --alter --entity-type topics --entity-name orders --delete-config max.message.bytes
run kafka-configs --alter --entity-type topics --entity-name orders --add-config nonsense=1
run kafka-configs --alter --entity-type brokers --entity-default --add-config log.retention.ms=90000000
run kafka-configs --alter --entity-type brokers --entity-name 1 --add-config log.cleaner.threads=2
run kafka-configs --describe --entity-type brokers --entity-name 1
run kafka-configs --alter --entity-type brokers --entity-name 1 --delete-config log.cleaner.threads
run kafka-configs --alter --entity-type brokers --entity-name 1 --add-config num.partitions=9
run kafka-configs --describe --entity-type brokers --entity-default
run kafka-configs --alter --entity-type brokers --entity-default --delete-config log.retention.ms
run kafka-configs --alter --entity-type groups --entity-name readers --add-config consumer.session.timeout.ms=50000
run kafka-configs --describe --entity-type groups --entity-name readers
run kafka-configs --alter --entity-type groups --entity-name readers --add-config consumer.session.timeout.ms=1
run kafka-configs --alter --entity-type client-metrics --entity-name metrics --add-config 'interval.ms=60000,metrics=[org.apache.kafka.]'
run kafka-configs --describe --entity-type client-metrics --entity-name metrics
run kafka-configs --alter --entity-type clients --entity-name reader --add-config consumer_byte_rate=1048576
run kafka-configs --describe --entity-type clients --entity-name reader
run kafka-configs --describe --entity-type users
run kafka-client-metrics --list
run kafka-client-metrics --describe --name metrics
run kafka-client-metrics --alter --name metrics --interval 30000
run kafka-client-metrics --delete --name metrics
echo '{"partitions":[{"topic":"orders","partition":0,"offset":2},{"topic":"orders","partition":1,"offset":-1}],"version":1}' >"$work/delete.json"
run sorted kafka-delete-records --offset-json-file "$work/delete.json"
echo '{"partitions":[{"topic":"nothere","partition":0,"offset":2}],"version":1}' >"$work/delete2.json"
run kafka-delete-records --offset-json-file "$work/delete2.json"
run kafka-get-offsets --topic orders --time earliest
run kafka-log-dirs --describe --topic-list plain
run kafka-leader-election --election-type preferred --topic orders --partition 0
run kafka-leader-election --election-type unclean --topic orders --partition 0
run kafka-leader-election --election-type preferred --all-topic-partitions
run kafka-leader-election --election-type preferred --topic nothere --partition 0
run kafka-transactions describe-producers --topic plain --partition 0
consume squeezed nobody 0
consume orders readers 20
run kafka-consumer-groups --list
run kafka-consumer-groups --list --state
run kafka-groups --list
run kafka-groups --list --consumer
run sorted kafka-consumer-groups --describe --group readers --state
run kafka-consumer-groups --describe --group readers --members
run kafka-consumer-groups --describe --group nobodyknows
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --to-earliest --dry-run
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --to-earliest --execute
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --shift-by 2 --execute
run sorted kafka-consumer-groups --group readers --topic orders:0 --reset-offsets --to-offset 5 --execute
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --to-latest --execute
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --execute
run sorted kafka-consumer-groups --group readers --topic orders --reset-offsets --by-duration PT1H --execute
run sorted kafka-consumer-groups --group readers --all-topics --reset-offsets --to-current --export --dry-run
run sorted kafka-consumer-groups --group readers --delete-offsets --topic orders
run kafka-consumer-groups --delete --group readers
run kafka-consumer-groups --delete --group readers
run kafka-features describe
run kafka-features upgrade --feature nothere=1
run kafka-features downgrade --feature metadata.version=20
run kafka-cluster cluster-id
run sorted kafka-cluster list-endpoints
run kafka-cluster unregister --id 9
run list kafka-broker-api-versions
run kafka-topics --delete --topic orders
run kafka-topics --delete --topic nothere
run sorted kafka-topics --list --exclude-internal
