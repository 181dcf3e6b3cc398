//! What is written, held against what `serde_json` writes of each part by itself, and read back.

use serde_json::{Value, from_str, to_string};

use super::{limits, write_event};
use crate::event::{Event, MetadataValue};

/// Chunks of every character that there is, in order.
fn all_characters(at_a_time: usize) -> Vec<String> {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    all.chunks(at_a_time).map(|chunk| chunk.iter().collect()).collect()
}

fn written(event: &Event, id: &str, name: &str) -> String {
    let mut json = Vec::new();
    write_event(event, id, name, 1_767_323_045_678, &mut json).unwrap();
    String::from_utf8(json).unwrap()
}

#[test]
fn every_character_is_written_as_serde_json_writes_it() {
    for text in all_characters(400) {
        let json = written(&Event::new("c").metadata("k", text.clone()), "id", "name");
        let expected = to_string(&text).unwrap();
        assert!(json.ends_with(&format!("{{\"k\":{expected}}}}}")), "{text:?}");
        assert_eq!(from_str::<Value>(&json).unwrap()["metadata"]["k"], text);
    }
}

#[test]
fn every_character_is_as_right_in_a_name_as_in_a_value() {
    for text in all_characters(limits::METADATA_KEY_CHARS) {
        let json = written(&Event::new(&text).metadata(text.clone(), true), &text, &text);
        let part = to_string(&text).unwrap();
        let expected = format!(
            "{{\"event_id\":{part},\"customer_id\":{part},\"event_name\":{part},\
             \"metadata\":{{{part}:true}}}}"
        );
        assert_eq!(json, expected);
    }
}

/// Writes a number, and returns its text.
fn number(value: impl Into<MetadataValue>) -> String {
    let json = written(&Event::new("c").metadata("k", value), "id", "name");
    let (_, number) = json.split_once("{\"k\":").unwrap();
    number.strip_suffix("}}").unwrap().to_owned()
}

#[test]
fn integers_keep_every_digit() {
    let powers = (0..63).map(|power| 1_i64 << power);
    let around = powers.flat_map(|power| [power - 1, power, power + 1]);
    let around = around.flat_map(|number| [number, -number]).chain([i64::MIN, i64::MAX]);
    for integer in around {
        assert_eq!(number(integer), integer.to_string());
    }
}

#[test]
fn doubles_are_written_as_serde_json_writes_them_and_read_back_to_the_bit() {
    let mut random = fastrand::Rng::with_seed(1);
    let powers = (0..2_047_u64).map(|exponent| f64::from_bits(exponent << 52));
    let edges = [f64::MIN, f64::MAX, f64::EPSILON, f64::MIN_POSITIVE, 0.1, 1e21, 1e-7, 1.0 / 3.0];
    let subnormal = [1, (1 << 52) - 1].map(f64::from_bits);
    let any = (0..50_000).map(|_| f64::from_bits(random.u64(..))).filter(|any| any.is_finite());
    for double in powers.chain(edges).chain(subnormal).chain(any) {
        for double in [double, -double] {
            let text = number(double);
            assert_eq!(text, to_string(&double).unwrap());
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), double.to_bits(), "{text}");
        }
    }
}
