"""P9: resident memory, idle, under load, and over time."""
from common import *


def run(rounds, small):
    seconds = 6 if small else 60
    with Folder('memory') as folder, Broker(os.path.join(folder, 'data')) as broker:
        time.sleep(2 if small else 10)
        idle = broker.rss_mib()
        broker.create('load', 16)
        broker.create('many', 1000)
        samples, ends = [], time.monotonic() + seconds
        load = Client('-P', '-t', 'load', '-s', '1000', '-c', '1000000000', '-a', '-1', '-r', '50000', '-q', '-X', 'linger.ms=5')
        more = Client('-P', '-t', 'many', '-s', '1000', '-c', '1000000000', '-a', '-1', '-r', '2000', '-q')
        read = Client('-C', '-t', 'load', '-p', '0', '-o', 'beginning', '-c', '1000000000', '-q')
        while time.monotonic() < ends:
            samples.append(round(broker.rss_mib(), 1))
            time.sleep(0.5)
        for client in (load, more, read):
            client.process.kill()
        for client in (load, more, read):
            client.process.wait()
            client.watcher.join()
    # The first third fills tail ring and caches up to their bounds.
    third = len(samples) // 3
    middle, last = samples[third:2 * third], samples[2 * third:]
    growth = max(last) / max(middle) - 1
    note(f'RSS every 0.5 s: {samples}')
    return [row('P9', 'resident, idle', round(idle, 1), '≤ 64 MiB', idle <= 64, '', 'MiB'),
            row('P9', f'growth of the largest RSS, last third over middle third of {seconds} s at 52 MB/s ({max(last):.0f} MiB)',
                round(growth * 100, 1), '≤ 5 %', None if small else growth <= 0.05, '', '%')]
