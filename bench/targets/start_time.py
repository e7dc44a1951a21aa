"""P8: exec to the first ApiVersions answer, in an empty folder, and with 10,000 partitions, 10 GB and 10,000 groups after kill -9."""
from common import *

# Of `commits`, which makes that many groups by committing to each.
GROUPS, COMMITS_PER_SECOND = 10_000, 5_000


def run(rounds, small):
    partitions, records = (200, 200_000) if small else (10_000, 10_000_000)
    groups = 100 if small else GROUPS
    empty, full, coordinator = [], [], []
    with Folder('start') as folder:
        for index in range(max(rounds, 3)):
            with Broker(os.path.join(folder, f'empty-{index}')) as broker:
                empty.append(broker.started_s * 1e3)
        data = os.path.join(folder, 'data')
        broker = Broker(data)
        try:
            broker.create('many', partitions)
            time.sleep(1)
            delivered, wall, _ = produce('many', records)
            assert delivered == records, f'{delivered} of {records} delivered'
            note(f'{records / 1e6:g} GB over {partitions} partitions in {wall:.0f} s')
            broker.create('commits', 1)
            first_commit(broker)
            check(commit_load(broker, groups, COMMITS_PER_SECOND, 1, 2 * groups // COMMITS_PER_SECOND + 1))
            for _ in range(max(rounds, 1)):
                # Killed under load, so that the core log holds what is in no segment yet.
                load = Client('-P', '-t', 'many', '-s', '1000', '-c', '100000000', '-a', '-1', '-q', '-X', 'linger.ms=5')
                time.sleep(2)
                broker.kill()
                load.process.kill()
                load.wait()
                broker = Broker(data)
                full.append(broker.started_s * 1e3)
                begin = time.monotonic()
                # The last group of all; the answer waits until its coordinator has read what it has to know.
                while f'commits-{groups - 1}' not in check([RINGMILL, 'group', 'list', '-b', broker.address]):
                    assert time.monotonic() - begin < 60, 'the groups did not come back'
                coordinator.append((broker.started_s + time.monotonic() - begin) * 1e3)
                note(f'start after kill -9: {full[-1]:.0f} ms, all groups after {coordinator[-1]:.0f} ms')
        finally:
            broker.kill()
    return [row('P8', f'start, empty folder, median of {len(empty)}', round(median(empty), 1), '≤ 50 ms', median(empty) <= 50, '', 'ms'),
            row('P8', f'start, {partitions:,} partitions, {groups:,} groups, {records / 1e6:g} GB, after kill -9 under load, largest of {len(full)}',
                round(max(full), 1), '≤ 1000 ms', None if small else max(full) <= 1000, '', 'ms'),
            row('P8', f'until it lists the {groups:,} groups, largest of {len(coordinator)}', round(max(coordinator), 1), '', None, '', 'ms')]
