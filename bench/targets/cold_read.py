"""P7, cold: one consumer reads a topic from its beginning after a restart with caches dropped, beside fio."""
from common import *

GOAL = 0.8


def run(rounds, small):
    records = 100_000 if small else 3_000_000
    ratios, rates, disks, busiest, dropped = [], [], [], [], True
    with Folder('cold') as folder:
        data = os.path.join(folder, 'data')
        with Broker(data) as broker:
            broker.create('cold', 1)
            delivered, _, _ = produce('cold', records, partition=0)
            assert delivered == records, f'{delivered} of {records} delivered'
        for _ in range(rounds):
            fio(folder, 'write', records // 1000, keep=True)
            dropped &= drop_caches()
            disks.append(fio(folder, 'read', records // 1000))
            dropped &= drop_caches()
            with Broker(data) as broker:
                client = Client('-C', '-t', 'cold', '-p', '0', '-c', str(records), '-o', 'beginning', '-u', '-q',
                                '-X', 'fetch.message.max.bytes=4000000')
                columns, _, busy = client.finish()
                assert int(columns[1]) >= records, f'{columns[1]} of {records} read'
                device = broker.metric('ringmill_cold_read_bytes_total')
                assert device >= 0.9 * records * 1000, 'the records came from the disk'
                rates.append(float(columns[5])); busiest.append(busy)
            ratios.append(rates[-1] / disks[-1])
            note(f'cold read {rates[-1]:.0f} MB/s, fio {disks[-1]:.0f} MB/s, busiest client thread {busy:.2f}')
    FIO_READ.extend(disks)
    client_limits = median(busiest) >= 0.9
    limit = f'client thread {median(busiest):.0%} busy; caches {"dropped" if dropped else "NOT dropped (needs root)"}'
    return [row('P7', f'cold read {median(rates):.0f} MB/s, fio 1 MiB depth 8 {median(disks):.0f} MB/s', round(median(ratios), 2),
                f'≥ {GOAL} × fio, or the client is the limit', median(ratios) >= GOAL or client_limits, limit, '× fio')]
