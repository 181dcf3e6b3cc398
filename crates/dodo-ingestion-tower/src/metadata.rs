//! Makes metadata fit: what breaks a limit of the billing API is cut or left out, because an event that is
//! refused is a call that is not billed.

use dodo_ingestion::{ApiCall, MetadataValue, keys, limits};

use crate::meter::{Meter, Pair};

/// The keys that the layer writes itself. Nobody else's value goes under one of them.
const OWN_KEYS: [&str; 9] = [
    keys::ENDPOINT,
    keys::METHOD,
    keys::STATUS_CODE,
    keys::RESPONSE_TIME_MS,
    keys::TTFB_MS,
    keys::RESPONSE_BYTES,
    keys::ABORTED,
    keys::UNITS,
    keys::GRPC_STATUS,
];

/// Adds the user's pairs to a call; of those with the same key the last one.
pub(crate) fn add(mut call: ApiCall, pairs: Vec<Pair>, meter: &Meter) -> ApiCall {
    let mut keys: Vec<String> = Vec::new();
    for (key, value) in pairs {
        let known = keys.contains(&key);
        match fitting(&key, value) {
            Ok(_) if !known && OWN_KEYS.len() + keys.len() == limits::METADATA_PAIRS => {
                let most = limits::METADATA_PAIRS;
                meter.alters(&key, &format!("left out: an event has at most {most} pairs"));
            }
            Ok((value, is_cut)) => {
                if is_cut {
                    let most = limits::METADATA_VALUE_CHARS;
                    meter.alters(&key, &format!("cut to {most} characters"));
                }
                call = call.metadata(&*key, value);
                if !known {
                    keys.push(key);
                }
            }
            Err(why) => meter.alters(&key, &why),
        }
    }
    call
}

/// The value as the billing API takes it, and whether it had to be cut; or why it takes none.
fn fitting(key: &str, value: MetadataValue) -> Result<(MetadataValue, bool), String> {
    if OWN_KEYS.contains(&key) {
        return Err("left out: the layer writes this key itself".into());
    }
    let most = limits::METADATA_KEY_CHARS;
    if key.is_empty() || (key.len() > most && key.chars().count() > most) {
        return Err(format!("left out: a key has 1 to {most} characters"));
    }
    match value {
        MetadataValue::String(text) => {
            let fits = limits::cut_value(&text);
            let is_cut = fits.len() < text.len();
            Ok((if is_cut { fits.into() } else { text.into() }, is_cut))
        }
        MetadataValue::Integer(number) if i64::try_from(number).is_err() => {
            Err("left out: an integer has 64 bits".into())
        }
        MetadataValue::Double(number) if !number.is_finite() => Err("left out: no number".into()),
        value @ (MetadataValue::Integer(_)
        | MetadataValue::Double(_)
        | MetadataValue::Boolean(_)) => Ok((value, false)),
        _ => Err("left out: a value is text, a number or a boolean".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_layer_are_those_of_all_languages() {
        #[derive(serde::Deserialize)]
        struct Vectors {
            own_keys: Vec<String>,
            room: usize,
        }
        let text = include_str!("../../../tests/vectors/metering.json");
        let Vectors { own_keys, room } = serde_json::from_str(text).unwrap();
        assert_eq!(own_keys, OWN_KEYS);
        assert_eq!(room, limits::METADATA_PAIRS - OWN_KEYS.len());
    }

    #[test]
    fn what_no_event_may_hold_is_left_out() {
        for (key, value) in [
            ("status_code", MetadataValue::from(200)),
            ("grpc_status", 0.into()),
            (&*"k".repeat(101), 1.into()),
            ("", 1.into()),
            ("x", f64::NAN.into()),
            ("x", u64::MAX.into()),
            ("x", MetadataValue::Unsupported("array".into())),
        ] {
            assert!(fitting(key, value).is_err(), "{key}");
        }
        let (text, is_cut) = fitting("x", "é".repeat(501).into()).unwrap();
        assert_eq!((text, is_cut), ("é".repeat(500).into(), true));
        assert_eq!(fitting("x", 1.5.into()), Ok((1.5.into(), false)));
    }
}
