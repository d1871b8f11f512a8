//! [`ResourceHints`]: what steps need of the machines that they run on.

use std::collections::BTreeMap;

/// The hint for memory.
const MIN_RAM: &str = "beam:resources:min_ram_bytes:v1";

/// The hint for accelerators.
const ACCELERATOR: &str = "beam:resources:accelerator:v1";

/// The hint for processors.
const CPU_COUNT: &str = "beam:resources:cpu_count:v1";

/// What steps need of the machines that they run on, as Beam's `with_resource_hints`. The embedded runner has but one machine and
/// takes no notice; an engine that knows hints gives such steps workers of their own, one that does not ignores them.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline, ResourceHints};
/// let p = Pipeline::new();
/// let hints = ResourceHints::new().min_ram_bytes(8_000_000_000).accelerator("type:nvidia-l4;count:1;install-nvidia-driver");
/// let doubled = p.apply(Create::of([1i64, 2])).step("Double").with_resource_hints(hints).map(|x| x * 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceHints {
    min_ram_bytes: Option<u64>,
    accelerator: Option<String>,
    cpu_count: Option<u32>,
}

impl ResourceHints {
    /// No needs.
    pub fn new() -> Self {
        ResourceHints::default()
    }

    /// The least memory of the machine.
    #[must_use]
    pub fn min_ram_bytes(mut self, bytes: u64) -> Self {
        self.min_ram_bytes = Some(bytes);
        self
    }

    /// An accelerator, such as `type:nvidia-tesla-t4;count:1;install-nvidia-driver`.
    #[must_use]
    pub fn accelerator(mut self, accelerator: impl Into<String>) -> Self {
        self.accelerator = Some(accelerator.into());
        self
    }

    /// The least number of processors.
    #[must_use]
    pub fn cpu_count(mut self, cpus: u32) -> Self {
        self.cpu_count = Some(cpus);
        self
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        *self == ResourceHints::default()
    }

    /// These within steps that have those of `outer`, by Beam's rules: the larger number, the inner accelerator.
    #[must_use]
    pub fn within(self, outer: &ResourceHints) -> Self {
        ResourceHints {
            min_ram_bytes: self.min_ram_bytes.max(outer.min_ram_bytes),
            accelerator: self.accelerator.or_else(|| outer.accelerator.clone()),
            cpu_count: self.cpu_count.max(outer.cpu_count),
        }
    }

    /// As they stand in an environment of Beam's messages.
    pub fn to_map(&self) -> BTreeMap<String, Vec<u8>> {
        let number = |number: u64| number.to_string().into_bytes();
        [
            (MIN_RAM, self.min_ram_bytes.map(number)),
            (ACCELERATOR, self.accelerator.as_ref().map(|text| text.clone().into_bytes())),
            (CPU_COUNT, self.cpu_count.map(|cpus| number(cpus.into()))),
        ]
        .into_iter()
        .filter_map(|(urn, value)| Some((urn.to_owned(), value?)))
        .collect()
    }
}

/// A size as people write it: `8GB`, `1.5 GiB`, `1024`.
pub fn bytes_of(text: &str) -> Option<u64> {
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
        let map = ResourceHints::new().min_ram_bytes(8).accelerator("type:t4").cpu_count(2).to_map();
        let of = |urn: &str| map.get(urn).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(of(MIN_RAM), Some("8".to_owned()));
        assert_eq!(of(ACCELERATOR), Some("type:t4".to_owned()));
        assert_eq!(of(CPU_COUNT), Some("2".to_owned()));
        assert!(ResourceHints::new().to_map().is_empty());
    }

    #[test]
    fn the_larger_number_counts_and_the_inner_accelerator() {
        let outer = ResourceHints::new().min_ram_bytes(8).accelerator("type:a").cpu_count(4);
        let inner = ResourceHints::new().min_ram_bytes(6).accelerator("type:b");
        let both = ResourceHints::new().min_ram_bytes(8).accelerator("type:b").cpu_count(4);
        assert_eq!(inner.within(&outer), both);
        assert_eq!(ResourceHints::new().within(&outer), outer);
    }
}
