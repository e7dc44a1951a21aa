"""P7, cold: one consumer reads a topic from its beginning after a restart with caches dropped, beside fio.

The client has one fetch outstanding, so a part of each round trip is its own: what the same client gets of records that
are in the broker's memory is the most that it can get of those on the disk."""
from common import *

GOAL = 0.8
# Below this share of that, something else than the client is in the way.
CLIENT_SHARE = 0.9


def consume(topic, records):
    """MB/s of one consumer, and how busy its busiest thread was."""
    client = Client('-C', '-t', topic, '-p', '0', '-c', str(records), '-o', 'beginning', '-u', '-q', '-X', 'fetch.message.max.bytes=4000000')
    columns, _, busy = client.finish()
    assert int(columns[1]) >= records, f'{columns[1]} of {records} read'
    return float(columns[5]), busy


def from_memory(folder, records):
    """What the client gets when no disk is asked."""
    with Broker(os.path.join(folder, 'memory'), '--memory', '5GiB', '--set', 'tail.bytes=3GiB') as broker:
        broker.create('kept', 1)
        produce('kept', records, partition=0)
        rates = [consume('kept', records)[0] for _ in range(3)]
        assert broker.metric('ringmill_cold_read_bytes_total') == 0, 'the records were in memory'
    return median(rates)


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
                rate, busy = consume('cold', records)
                device = broker.metric('ringmill_cold_read_bytes_total')
                assert device >= 0.9 * records * 1000, 'the records came from the disk'
                rates.append(rate); busiest.append(busy)
            ratios.append(rates[-1] / disks[-1])
            note(f'cold read {rates[-1]:.0f} MB/s, fio {disks[-1]:.0f} MB/s, busiest client thread {busy:.2f}')
        memory = from_memory(folder, records // 3)
    note(f'the same client from memory {memory:.0f} MB/s')
    FIO_READ.extend(disks)
    client_limits = median(busiest) >= 0.9 or median(rates) >= CLIENT_SHARE * memory
    limit = f'the same client from memory: {memory:.0f} MB/s; client thread {median(busiest):.0%} busy; caches {"dropped" if dropped else "NOT dropped (needs root)"}'
    return [row('P7', f'cold read {median(rates):.0f} MB/s, fio 1 MiB depth 8 {median(disks):.0f} MB/s', round(median(ratios), 2),
                f'≥ {GOAL} × fio, or the client is the limit', median(ratios) >= GOAL or client_limits, limit, '× fio')]
