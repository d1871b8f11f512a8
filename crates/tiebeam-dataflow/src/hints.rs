//! What a pipeline's steps need of a machine: Beam's resource hints.

use std::collections::BTreeMap;

/// The hint for memory.
const MIN_RAM: &str = "beam:resources:min_ram_bytes:v1";
/// The hint for accelerators.
const ACCELERATOR: &str = "beam:resources:accelerator:v1";

/// Needs of all steps of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Memory of the machine.
    pub min_ram_bytes: Option<u64>,
    /// Such as `type:nvidia-tesla-t4;count:1;install-nvidia-driver`.
    pub accelerator: Option<String>,
}

impl Hints {
    /// As they stand in an environment.
    pub fn to_map(&self) -> BTreeMap<String, Vec<u8>> {
        let ram = self.min_ram_bytes.map(|bytes| (MIN_RAM.to_owned(), bytes.to_string().into_bytes()));
        let accelerator =
            self.accelerator.as_ref().map(|text| (ACCELERATOR.to_owned(), text.clone().into_bytes()));
        ram.into_iter().chain(accelerator).collect()
    }
}

/// A size as people write it: `8GB`, `1.5 GiB`, `1024`.
pub(crate) fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().ok()?;
    let unit = text[split..].to_ascii_uppercase();
    let power = |letter: &str| " KMGTP".find(letter).map(|power| power as i32);
    let factor = match unit.as_str() {
        "" | "B" => 1.0,
        _ => match (unit.strip_suffix("IB"), unit.strip_suffix('B')) {
            (Some(letter), _) if letter.len() == 1 => 1024f64.powi(power(letter)?),
            (None, Some(letter)) if letter.len() == 1 => 1000f64.powi(power(letter)?),
            _ => return None,
        },
    };
    let bytes = number * factor;
    (bytes.is_finite() && (1.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("1024", 1024),
            ("8GB", 8_000_000_000),
            ("1.5GiB", 1_610_612_736),
            ("2 mib", 2_097_152),
            ("3KB", 3000),
            ("7B", 7),
        ] {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "8XB", "8Gi", "8 G B", "1e400GB", "inf", "NaN", "99999PB"] {
            assert_eq!(bytes_of(text), None, "{text}");
        }
    }

    #[test]
    fn hints_are_bytes_in_an_environment() {
        let hints = Hints { min_ram_bytes: Some(8), accelerator: Some("type:t4".to_owned()) };
        let map = hints.to_map();
        assert_eq!(map["beam:resources:min_ram_bytes:v1"], b"8");
        assert_eq!(map["beam:resources:accelerator:v1"], b"type:t4");
        assert!(Hints::default().to_map().is_empty());
    }
}
