//! What is written is what a broker takes, and what was meant is read back.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ringmill_record::write::{Sealing, put_record, seal};
use ringmill_record::{HEADER_BYTES, Records, validate_produced};

type Field = Option<Vec<u8>>;

fn field() -> impl Strategy<Value = Field> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..200))
}

proptest! {
    #[test]
    fn records_come_back(
        records in prop::collection::vec((field(), field(), prop::collection::vec(field(), 0..3), 0i64..1 << 40), 1..40),
        start in 0i64..1 << 41,
    ) {
        let mut batch = vec![0; HEADER_BYTES];
        for (at, (key, value, headers, delta)) in records.iter().enumerate() {
            let headers = headers.iter().map(|value| (&b"name"[..], value.as_deref()));
            put_record(&mut batch, *delta, at as i32, key.as_deref(), value.as_deref(), headers);
        }
        let latest = start + records.iter().map(|r| r.3).max().unwrap();
        let sealing = Sealing {
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 40,
            ..Sealing::plain(start, latest, records.len() as i32)
        };
        seal(&mut batch, &sealing);
        let header = validate_produced(Some(&batch), 13).unwrap().header;
        prop_assert_eq!((header.base_timestamp_ms, header.max_timestamp_ms), (start, latest));
        prop_assert_eq!((header.producer_id.0, header.base_sequence), (7, 40));
        let read: Vec<_> = Records::new(&header, &batch).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), records.len());
        for (read, (key, value, _, delta)) in read.iter().zip(&records) {
            prop_assert_eq!(read.key, key.as_deref());
            prop_assert_eq!(read.value, value.as_deref());
            prop_assert_eq!(read.timestamp_delta_ms, *delta);
        }
    }
}
