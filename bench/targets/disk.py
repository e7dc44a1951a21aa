"""P10: what one core's log gets out of the disk, beside fio and beside a bare ring; P4's and P1's raw paced loop."""
from common import *

RATE, FRAME_BYTES = 2000, 1100


def run(rounds, small):
    seconds, mebibytes = (1, 256) if small else (5, 4096)
    streams, groups, tails, rows = [], [], [], []
    with Folder('disk') as folder:
        for _ in range(rounds):
            # Warm, then alternate, so that a drift of the machine meets both.
            disk = fio(folder, 'write', mebibytes)
            FIO_WRITE.append(disk)
            ours = raw_line(LOG_DISK, 'stream', folder, mebibytes // 2)
            streams.append((ours['disk_mb_s'], disk, ours['disk_mb_s'] / disk))
            note(f'stream {ours}, fio {disk:.0f} MB/s')
        for _ in range(max(rounds, 3)):
            raw = raw_line(RAW, 'write', folder, seconds)
            ours = raw_line(LOG_DISK, 'groups', folder, seconds)
            groups.append((ours['per_second'], raw['per_second'], ours['per_second'] / raw['per_second']))
            tails.append((ours['p99_us'], raw['p99_us']))
            note(f'groups {ours}, raw {raw}')
    ratio = lambda xs: median([x[2] for x in xs])
    mid = lambda xs, at: median([x[at] for x in xs])
    rows.append(row('P10', f'core log + destage {mid(streams, 0):.0f} MB/s, fio 1 MiB depth 8 write {mid(streams, 1):.0f} MB/s',
                    round(ratio(streams), 2), '≥ 0.6 × fio', None if small else ratio(streams) >= 0.6, '', '× fio'))
    rows.append(row('P10', f'flush groups of 4 KiB {mid(groups, 0):.0f}/s (p99 {mid(tails, 0):.0f} µs), raw loop {mid(groups, 1):.0f}/s '
                    f'(p99 {mid(tails, 1):.0f} µs)', round(ratio(groups), 2), '≥ 0.9 × raw', ratio(groups) >= 0.9, '', '× raw'))
    return rows


def paced(rounds, small):
    """P4: broker CPU per record at 2,000 rec/s, beside a loop of receive + write + flush + send; the same client counts for both."""
    seconds = 2 if small else 8
    ours, raws = [], []
    with Folder('paced') as folder, Broker(os.path.join(folder, 'data'), '--cores', '1') as broker:
        broker.create('paced', 1)
        produce('paced', 20_000, partition=0)
        for _ in range(max(rounds, 3)):
            raws.append(raw_line(RAW, 'serve', folder, RATE, seconds, FRAME_BYTES, 'spin')['cpu_us'])
            count = RATE * seconds
            cpu = sum(threads_cpu_s(broker.pid).values())
            client = Client('-P', '-t', 'paced', '-p', '0', '-s', '1000', '-c', str(count), '-r', str(RATE), '-a', '-1', '-u', '-X', 'linger.ms=0')
            columns, _, _ = client.finish()
            assert int(columns[4]) == count, f'{columns[4]} of {count} delivered'
            ours.append((sum(threads_cpu_s(broker.pid).values()) - cpu) / count * 1e6)
            note(f'CPU per record: ours {ours[-1]:.1f} µs, raw loop {raws[-1]:.1f} µs')
    ratio = median(ours) / median(raws)
    return [row('P4', f'CPU per record at {RATE}/s, {median(ours):.1f} µs; raw receive + write + flush + send {median(raws):.1f} µs',
                round(ratio, 2), '≤ 1.3 × raw', ratio <= 1.3, '', '× raw')]
