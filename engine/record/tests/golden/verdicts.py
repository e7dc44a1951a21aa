#!/usr/bin/env python3
"""Asks a running Kafka what it thinks of record batches, good and bad, and prints one line per case for verdicts.txt.

    verdicts.py HOST:PORT > verdicts.txt

Needs a fresh broker of Kafka 4.3 and nothing but Python: batches are made by hand here, so that they can be wrong.
A line: name | topic kind | produce version | records sent (hex, - for null) | error code | error message | stored batch (hex).
"""
import gzip
import socket
import struct
import sys
import time

NOW_MS = 1_790_000_000_000


def crc32c(data, table=[]):
    if not table:
        for i in range(256):
            c = i
            for _ in range(8):
                c = (c >> 1) ^ (0x82F63B78 if c & 1 else 0)
            table.append(c)
    c = 0xFFFFFFFF
    for b in data:
        c = table[(c ^ b) & 255] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


def zigzag(n):
    n = (n << 1) ^ (n >> 63)
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def record(delta, value=b"value", key=b"key", ts_delta=0):
    field = lambda f: zigzag(-1) if f is None else zigzag(len(f)) + f
    body = b"\0" + zigzag(ts_delta) + zigzag(delta) + field(key) + field(value) + zigzag(0)
    return zigzag(len(body)) + body


def batch(records=None, *, base=0, epoch=-1, magic=2, attributes=0, delta=None, base_ts=NOW_MS, max_ts=None, pid=-1,
          pepoch=-1, seq=-1, count=None, payload=None, length=None, crc_xor=0):
    records = [record(0)] if records is None else records
    payload = b"".join(records) if payload is None else payload
    delta = len(records) - 1 if delta is None else delta
    count = len(records) if count is None else count
    max_ts = base_ts if max_ts is None else max_ts
    covered = struct.pack(">hiqqqhii", attributes, delta, base_ts, max_ts, pid, pepoch, seq, count) + payload
    length = 9 + len(covered) if length is None else length
    return struct.pack(">qiibI", base, length, epoch, magic, crc32c(covered) ^ crc_xor) + covered


def message_v1(value):
    import zlib
    body = b"\x01\x00" + struct.pack(">qii", NOW_MS, -1, len(value)) + value
    return struct.pack(">qiI", 0, 4 + len(body), zlib.crc32(body)) + body


class Client:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=3)

    def ask(self, key, version, body):
        self.socket.sendall(struct.pack(">ihhih", 10 + len(body), key, version, 1, -1) + body)
        return self.read(struct.unpack(">i", self.read(4))[0])[4:]

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def create(self, name, configs):
        text = lambda s: struct.pack(">h", len(s)) + s.encode()
        body = struct.pack(">i", 1) + text(name) + struct.pack(">ihi", 1, 1, 0) + struct.pack(">i", len(configs))
        body += b"".join(text(k) + text(v) for k, v in configs.items())
        self.ask(19, 2, body + struct.pack(">ib", 10_000, 0))

    def produce(self, topic, version, records):
        text = struct.pack(">h", len(topic)) + topic.encode()
        body = struct.pack(">hhii", -1, -1, 10_000, 1) + text + struct.pack(">ii", 1, 0)
        body += struct.pack(">i", -1) if records is None else struct.pack(">i", len(records)) + records
        answer = self.ask(0, version, body)
        at = 4 + 2 + len(topic) + 4 + 4
        error, offset = struct.unpack_from(">hq", answer, at)
        message = ""
        if version >= 8:
            at += 2 + 8 + 8 + 8
            (errors,) = struct.unpack_from(">i", answer, at)
            at += 4
            texts = []
            for _ in range(errors):
                index, size = struct.unpack_from(">ih", answer, at)
                at += 6
                if size >= 0:
                    texts.append(f"{index}: {answer[at:at + size].decode()}")
                    at += size
            (size,) = struct.unpack_from(">h", answer, at)
            message = "; ".join(([answer[at + 2:at + 2 + size].decode()] if size >= 0 else []) + texts)
        return error, offset, message

    def fetch(self, topic, offset):
        text = struct.pack(">h", len(topic)) + topic.encode()
        body = struct.pack(">iiiibi", -1, 100, 1, 1 << 20, 0, 1) + text
        answer = self.ask(1, 4, body + struct.pack(">iiqi", 1, 0, offset, 1 << 20))
        at = 4 + 4 + 2 + len(topic) + 4 + 4 + 2 + 8 + 8
        (aborted,) = struct.unpack_from(">i", answer, at)
        at += 4 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", answer, at)
        return answer[at + 4:at + 4 + size]


def cases():
    two = [record(0), record(1)]
    good = batch(two)
    yield "good", good
    yield "good-old-clients-version", good, 3
    yield "null-records", None
    yield "no-records", b""
    yield "shorter-than-length-field", b"\0" * 11
    yield "header-cut", good[:60]
    yield "last-byte-missing", good[:-1]
    yield "byte-after", good + b"\0"
    yield "bytes-after", good + b"\0" * 30
    yield "two-batches", good + good
    yield "length-0", batch(two, length=0)
    yield "length-13", batch(two, length=13)
    yield "length-14", batch(two, length=14)
    yield "length-48", batch(two, length=48)
    yield "length-49", batch(two, length=49)
    yield "length-negative", batch(two, length=-1)
    yield "length-huge", batch(two, length=0x7FFFFFFF)
    yield "magic-0", batch(two, magic=0)
    yield "magic-1", batch(two, magic=1)
    yield "magic-1-real-message", message_v1(b"hello, magic one")
    yield "magic-3", batch(two, magic=3)
    yield "magic-negative", batch(two, magic=-1)
    yield "crc-wrong", batch(two, crc_xor=1)
    yield "crc-right-payload-damaged", good[:-2] + bytes([good[-2] ^ 1]) + good[-1:]
    yield "base-offset-5", batch(two, base=5)
    yield "base-offset-negative", batch(two, base=-1)
    yield "leader-epoch-7", batch(two, epoch=7)
    yield "count-0-delta-negative", batch([], delta=-1, count=0)
    yield "count-0-delta-0", batch([], delta=0, count=0)
    yield "count-0-with-records", batch(two, count=0)
    yield "count-negative", batch(two, count=-1)
    yield "count-above-delta", batch(two, count=3)
    yield "count-below-delta", batch(two, delta=2)
    yield "count-and-delta-huge", batch(two, delta=0x7FFFFFFE, count=0x7FFFFFFF)
    yield "delta-max", batch(two, delta=0x7FFFFFFF, count=2)
    yield "delta-negative", batch(two, delta=-5)
    yield "count-above-records", batch(two, delta=2, count=3)
    yield "count-below-records", batch(two, delta=0, count=1)
    yield "record-offset-wrong", batch([record(0), record(5)])
    yield "record-offsets-swapped", batch([record(1), record(0)])
    yield "record-length-beyond-batch", batch(two, payload=b"\x7e" + b"".join(two)[1:])
    yield "bytes-after-last-record", batch(two, payload=b"".join(two) + b"\0\0\0")
    for code in range(5, 8):
        yield f"compression-{code}", batch(two, attributes=code)
    yield "gzip", batch(two, attributes=1, payload=gzip.compress(b"".join(two), mtime=0))
    packed = lambda records, **more: batch(records, attributes=1, payload=gzip.compress(b"".join(records), mtime=0), **more)
    yield "gzip-null-key", packed([record(0), record(1, key=None)])
    yield "gzip-offset-wrong", packed([record(0), record(5)])
    yield "gzip-offset-wrong-and-null-key", packed([record(0, key=None), record(5)])
    yield "gzip-count-above-records", packed(two, delta=2, count=3)
    yield "gzip-count-below-records", packed(two, delta=0, count=1)
    yield "gzip-max-timestamp-too-low", packed([record(0, ts_delta=50), record(1)], max_ts=NOW_MS)
    yield "gzip-two-hours-ahead-in-records-only", packed(
        [record(0, ts_delta=7_200_000), record(1)], base_ts=int(time.time() * 1000), max_ts=int(time.time() * 1000)
    )
    yield "gzip-garbage", batch(two, attributes=1, payload=b"this is not gzip")
    yield "zstd-garbage-version-6", batch(two, attributes=4), 6
    yield "zstd-garbage-version-7", batch(two, attributes=4), 7
    yield "log-append-time-bit", batch(two, attributes=8)
    yield "transactional", batch(two, attributes=16)
    yield "transactional-with-producer", batch(two, attributes=16, pid=77, pepoch=0, seq=0)
    yield "control", batch(two, attributes=32)
    yield "delete-horizon-bit", batch(two, attributes=64)
    yield "unused-bit-7", batch(two, attributes=128)
    yield "unused-bit-14", batch(two, attributes=1 << 14)
    yield "unused-bit-15", batch(two, attributes=-(1 << 15))
    yield "producer-first-sequence-0", batch(two, pid=1001, pepoch=0, seq=0)
    yield "producer-first-sequence-5", batch(two, pid=1002, pepoch=0, seq=5)
    yield "producer-sequence-wraps", batch(two, pid=1003, pepoch=0, seq=0x7FFFFFFF)
    yield "producer-sequence-negative", batch(two, pid=1004, pepoch=0, seq=-1)
    yield "producer-epoch-negative", batch(two, pid=1005, pepoch=-1, seq=0)
    yield "producer-epoch-5-is-the-first", batch(two, pid=1006, pepoch=5, seq=0)
    yield "no-producer-with-epoch-and-sequence", batch(two, pepoch=3, seq=7)
    yield "producer-id-minus-2", batch(two, pid=-2, pepoch=0, seq=0)
    yield "timestamp-none", batch(two, base_ts=-1)
    yield "timestamp-minus-2", batch(two, base_ts=-2)
    yield "timestamp-0", batch(two, base_ts=0)
    yield "max-timestamp-too-low", batch([record(0, ts_delta=50), record(1)], max_ts=NOW_MS)
    yield "max-timestamp-too-high", batch(two, max_ts=NOW_MS + 10_000)
    soon = int(time.time() * 1000)
    yield "two-hours-ahead", batch(two, base_ts=soon + 7_200_000)
    yield "two-hours-ahead-in-records-only", batch([record(0, ts_delta=7_200_000), record(1)], base_ts=soon, max_ts=soon)
    yield "null-key", batch([record(0, key=None)])
    yield "null-keys-four-of-five", batch([record(d, key=b"key" if d == 2 else None) for d in range(5)])
    soon = int(time.time() * 1000)
    yield "null-key-and-two-hours-ahead", batch([record(0, key=None), record(1, ts_delta=7_200_000)], base_ts=soon)
    yield "null-value", batch([record(0, value=None)])


def main():
    client = Client(sys.argv[1])
    kinds = {
        "plain": {},
        "compacted": {"cleanup.policy": "compact"},
        "append-time": {"message.timestamp.type": "LogAppendTime"},
        "small": {"max.message.bytes": "100"},
    }
    for kind, configs in kinds.items():
        client.create(f"verdict-{kind}", configs)
    time.sleep(2)
    for case in cases():
        name, records, version = (*case, 8)[:3]
        some = ("good", "null-key", "null-value", "gzip", "log-append-time-bit", "two-hours-ahead", "timestamp-none")
        wanted = ["plain"] + [k for k in kinds if k != "plain" and name in some]
        if "null-key" in name or name.startswith("gzip-"):
            wanted += ["compacted"] if "compacted" not in wanted else []
        if name in ("crc-wrong", "magic-1", "base-offset-5", "count-above-delta"):
            wanted.append("small")
        for kind in wanted:
            topic = f"verdict-{kind}"
            try:
                error, offset, message = client.produce(topic, version, records)
                stored = client.fetch(topic, offset) if error == 0 else b""
            except (ConnectionError, TimeoutError):
                client = Client(sys.argv[1])
                error, message, stored = "no answer", "", b""
            message = message.replace("\n", " ").replace("|", "/")
            sent = "-" if records is None else records.hex()
            print(" | ".join([name, kind, str(version), sent, str(error), message, stored.hex()]))


main()
