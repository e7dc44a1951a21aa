#!/usr/bin/env python3
"""What P1 becomes while a broker does other work (the coordinator under offset commits, compaction and retention flat out), or
while a neighbour wants CPU now and then.

bench/targets/beside.py commits [--groups 10000] [--rate 50000] [--each 1] [--rounds 3] [--seconds 20]
bench/targets/beside.py cleaning [--gigabytes 20] [--seconds 20] [--limit 64MiB]
bench/targets/beside.py neighbour [--rounds 3] [--seconds 15]
bench/targets/beside.py bulk [--rounds 3] [--seconds 15]

commits:  two brokers run. P1 (rdkafka_performance, 2,000 rec/s x 1,000 B, acks=all, one partition) is measured at the first,
          while the same commits go to the first and then to the second, in turn: the CPU that clients and a coordinator take
          is the same both times, so what is left is what control does to the cores of its own broker.
cleaning: one broker with that much data in a compacted and in a deleting topic. P1 before anything is cleaned, and while
          it is, as fast as it goes unless --limit sets log.cleaner.io.max.bytes.per.second.
neighbour: one broker, and a process of the same session that takes 150 ms of CPU once a second, with the scheduler's autogroup on
          and off in turn; beside P1, how long the kernel's workers, one of which ends every direct write, waited for a CPU
          (kernel-notes/completion-worker.md). Wants root, and puts the setting back.
bulk:     one core, and a producer of another partition that takes all there is; flush groups of 4,032 KiB, as they are by default,
          and of 1 MiB in turn (kernel-notes/large-writes.md).

Prints a line of JSON for each round, then the ratios of the pooled samples. Wants target/release/ringmill and a quiet machine.
"""
import argparse, contextlib, json, os, re, subprocess, sys, tempfile, time
import common
from common import Broker, Client, Folder, check, commit_load, first_commit, free_port

# Partitions that a commit may name.
TOPIC_PARTITIONS = 100
QUANTILES = {'p50': .5, 'p90': .9, 'p99': .99, 'p99.9': .999}


def p1(broker, seconds):
    """Latencies in milliseconds of P1's load, without the tenth in which connections are made."""
    samples = tempfile.mktemp(prefix='beside-')
    client = Client('-P', '-t', 'p1', '-p', '0', '-s', '1000', '-c', str(2000 * seconds), '-r', '2000', '-a', '-1', '-l', '-A', samples,
                    '-X', 'linger.ms=0', port=broker.port)
    # Its summary is not wanted: every record is in the file.
    out = client.wait(timeout=seconds + 60)
    if client.process.returncode:
        raise RuntimeError(f'rdkafka_performance said: {out[-500:]}')
    found = [float(m.group(1)) / 1e3 for m in (re.match(r'\s*([\d.]+)', line) for line in open(samples)) if m]
    os.unlink(samples)
    return found[len(found) // 10:]


def quantiles(samples):
    samples = sorted(samples)
    return {name: round(samples[min(len(samples) - 1, int(len(samples) * q))], 3) for name, q in QUANTILES.items()}


def ratios(under, beside):
    a, b = quantiles(under), quantiles(beside)
    return {name: round(a[name] / b[name], 2) for name in QUANTILES}


def show(**row):
    print(json.dumps(row), flush=True)


def control(broker, before=None):
    """Where control's time goes: of its steps, and its thread's CPU."""
    now = {'steps': broker.metric('ringmill_control_step_seconds_count'), 'step_s': broker.metric('ringmill_control_step_seconds_sum'),
           'cpu_s': sum(s for name, s in common.threads_cpu_s(broker.pid).items() if name.startswith('control')),
           'broker_cpu_s': broker.cpu_s()}
    if before is None:
        return now
    spent = {name: round(now[name] - before[name], 2) for name in now}
    if spent['steps']:
        spent['us_per_step'] = round(spent['step_s'] / spent['steps'] * 1e6, 1)
    spent['longest_step_ms'] = round(broker.metric('ringmill_control_step_longest_seconds') * 1e3, 2)
    return spent


def commits(asked):
    pooled = {'same': [], 'second': []}
    with Folder('commits') as folder, Broker(os.path.join(folder, 'a'), '--memory', '512MiB') as first, \
            Broker(os.path.join(folder, 'b'), '--memory', '512MiB', port=free_port(), admin=free_port()) as second:
        first.create('p1', 1)
        for broker in (first, second):
            broker.create('commits', TOPIC_PARTITIONS)
            first_commit(broker)
            # Every group is there before anything is counted.
            load(broker, asked, asked.groups / (asked.rate / asked.each) + 2)
        p1(first, 5)
        for round_ in range(asked.rounds):
            for where, broker in (('second', second), ('same', first)) if round_ % 2 else (('same', first), ('second', second)):
                before = control(broker)
                running = load(broker, asked, asked.seconds + 4, wait=False)
                time.sleep(2)
                found = p1(first, asked.seconds)
                out, _ = running.communicate(timeout=120)
                pooled[where] += found
                show(round=round_, load_at=where, p1_ms=quantiles(found), commits=json.loads(out.strip().splitlines()[-1]), control=control(broker, before))
        show(groups=int(first.metric('ringmill_groups')), same=quantiles(pooled['same']), second=quantiles(pooled['second']),
             ratios=ratios(pooled['same'], pooled['second']))


def load(broker, asked, seconds, wait=True):
    command = commit_load(broker, asked.groups, asked.rate, asked.each, seconds)
    if wait:
        return check(command)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def cleaning(asked):
    records = int(asked.gigabytes * 1e9 / 1000 / 2)
    # Nothing is looked at until the topics say so.
    settings = ['--set', f'log.cleaner.io.max.bytes.per.second={asked.limit}', '--set', 'log.cleaner.backoff.ms=1000', '--set', 'log.retention.check.interval.ms=1000']
    with Folder('cleaning') as folder, Broker(os.path.join(folder, 'a'), '--memory', '512MiB', *settings) as broker:
        broker.create('p1', 1)
        compacted = ['--config', 'cleanup.policy=compact', '--config', 'min.compaction.lag.ms=600000', '--config', 'segment.bytes=268435456',
                     '--config', 'min.cleanable.dirty.ratio=0.01']
        check([common.RINGMILL, 'topic', 'create', 'compacted', '--partitions', '4', *compacted, '-b', broker.address])
        check([common.RINGMILL, 'topic', 'create', 'deleted', '--partitions', '4', '--config', 'segment.bytes=268435456', '-b', broker.address])
        for topic, keys in (('compacted', ['--keys', 'uniform:1000000']), ('deleted', [])):
            check([common.RINGMILL, 'perf', 'produce', '--topic', topic, '--num-records', str(records), '--record-size', '1000', '--throughput', '-1', '--producers', '4',
                   *keys, '-b', broker.address], timeout=1800)
        p1(broker, 5)
        pooled = {'before': [], 'while': []}
        for _ in range(asked.rounds):
            pooled['before'] += p1(broker, asked.seconds)
        show(before=quantiles(pooled['before']))
        for topic, config in (('compacted', 'min.compaction.lag.ms=0'), ('deleted', f'retention.bytes={64 << 20}')):
            check([common.RINGMILL, 'topic', 'alter', topic, '--config', config, '-b', broker.address])
        begun, at_work = time.monotonic(), lambda: broker.metric('ringmill_compaction_io_bytes_total')
        came = at_work()
        while True:
            samples, bytes_before = p1(broker, asked.seconds), came
            came = at_work()
            gone = broker.metric('ringmill_compacted_bytes_total')
            show(seconds=round(time.monotonic() - begun), p1_ms=quantiles(samples), cleaned_gb=round(came / 1e9, 2), freed_gb=round(gone / 1e9, 2))
            # A stretch in which nothing was cleaned says nothing.
            if came - bytes_before < 100e6:
                break
            pooled['while'] += samples
        if not pooled['while']:
            sys.exit('nothing was cleaned')
        show(before=quantiles(pooled['before']), cleaning=quantiles(pooled['while']), ratios=ratios(pooled['while'], pooled['before']))


AUTOGROUP = '/proc/sys/kernel/sched_autogroup_enabled'
NEIGHBOUR = """
import random, time
while True:
    time.sleep(random.uniform(.7, 1.3))
    until = time.process_time() + .15
    while time.process_time() < until: pass
"""


class WorkerWaits:
    """How long workers of the kernel wait from their wake-up until they run, from the scheduler's trace events."""
    ROOT = '/sys/kernel/tracing/instances/ringmill-beside'
    EVENTS = {'sched_wakeup': 'comm ~ "kworker/*"', 'sched_switch': 'next_comm ~ "kworker/*"'}

    def write(self, name, text):
        with open(f'{self.ROOT}/{name}', 'w') as f:
            f.write(text)

    def __enter__(self):
        os.makedirs(self.ROOT, exist_ok=True)
        self.write('buffer_size_kb', '65536')
        for event, which in self.EVENTS.items():
            self.write(f'events/sched/{event}/filter', which)
            self.write(f'events/sched/{event}/enable', '1')
        return self

    def __exit__(self, *_):
        os.rmdir(self.ROOT)

    def begin(self):
        self.write('trace', '')
        self.write('tracing_on', '1')

    def end(self):
        """Milliseconds, longest first."""
        self.write('tracing_on', '0')
        woken, waits = {}, []
        for line in open(f'{self.ROOT}/trace'):
            event = re.search(r' ([\d.]+): (sched_wakeup|sched_switch): .*?(?:comm|next_comm)=(kworker/\S+) (?:next_)?pid=(\d+)', line)
            if event is None:
                continue
            at, what, _, pid = float(event[1]), event[2], event[3], event[4]
            if what == 'sched_wakeup':
                woken[pid] = at
            elif pid in woken:
                waits.append(round((at - woken.pop(pid)) * 1e3, 3))
        return sorted(waits, reverse=True)


def neighbour(asked):
    found = open(AUTOGROUP).read()
    pooled = {'1': [], '0': []}
    with Folder('neighbour') as folder, Broker(os.path.join(folder, 'a'), '--memory', '512MiB') as broker, WorkerWaits() as waits:
        beside = subprocess.Popen([sys.executable, '-c', NEIGHBOUR])
        try:
            p1(broker, 5)
            for round_ in range(asked.rounds):
                for autogroup in ('1', '0') if round_ % 2 == 0 else ('0', '1'):
                    with open(AUTOGROUP, 'w') as f:
                        f.write(autogroup)
                    waits.begin()
                    samples = p1(broker, asked.seconds)
                    pooled[autogroup] += samples
                    show(round=round_, autogroup=int(autogroup), p1_ms=quantiles(samples), max_ms=max(samples), workers_waited_longest_ms=waits.end()[:3])
        finally:
            beside.kill()
            beside.wait()
            with open(AUTOGROUP, 'w') as f:
                f.write(found)
    show(on=quantiles(pooled['1']), off=quantiles(pooled['0']), ratios=ratios(pooled['1'], pooled['0']))


def bulk(asked):
    sizes = {'4032KiB': ['--set', 'group.bytes=4032KiB'], '1MiB': ['--set', 'group.bytes=1MiB']}
    pooled = {size: [] for size in sizes}
    keep = ['--config', 'retention.bytes=268435456', '--config', 'segment.bytes=67108864']
    with Folder('bulk') as folder, contextlib.ExitStack() as running:
        brokers = {}
        for size, options in sizes.items():
            brokers[size] = running.enter_context(Broker(os.path.join(folder, size), '--cores', '1', '--memory', '512MiB', *options,
                                                         '--set', 'log.retention.check.interval.ms=1000', port=free_port(), admin=free_port()))
            brokers[size].create('p1', 1)
            check([common.RINGMILL, 'topic', 'create', 'bulk', '--partitions', '1', *keep, '-b', brokers[size].address])
            p1(brokers[size], 5)
        for round_ in range(asked.rounds):
            for size in list(sizes)[::1 if round_ % 2 == 0 else -1]:
                broker = brokers[size]
                producer = subprocess.Popen([common.LIBRDKAFKA, 'perf', '-P', '-t', 'bulk', '-p', '0', '-s', '1000', '-c', '1000000000', '-a', '-1', '-u', '-X', 'linger.ms=5',
                                             '-X', 'batch.size=1000000', '-X', 'queue.buffering.max.messages=1000000', '-b', broker.address],
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    time.sleep(2)
                    before, begun = broker.metric('ringmill_received_bytes_total'), time.monotonic()
                    samples = p1(broker, asked.seconds)
                    rate = (broker.metric('ringmill_received_bytes_total') - before) / 1e6 / (time.monotonic() - begun)
                finally:
                    producer.kill()
                    producer.wait()
                pooled[size] += samples
                show(round=round_, group_bytes=size, p1_ms=quantiles(samples), max_ms=max(samples), mb_s=round(rate))
                time.sleep(5)
    show(**{size: quantiles(samples) for size, samples in pooled.items()}, ratios=ratios(pooled['4032KiB'], pooled['1MiB']))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['commits', 'cleaning', 'neighbour', 'bulk'])
    parser.add_argument('--groups', type=int, default=10000); parser.add_argument('--rate', type=int, default=50000)
    parser.add_argument('--each', type=int, default=1, help=f'offsets in a request, up to {TOPIC_PARTITIONS}')
    parser.add_argument('--gigabytes', type=float, default=20); parser.add_argument('--limit', default='1TiB', help='of compaction, in bytes a second')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=int, default=20)
    asked = parser.parse_args()
    {'commits': commits, 'cleaning': cleaning, 'neighbour': neighbour, 'bulk': bulk}[asked.what](asked)


if __name__ == '__main__':
    main()
