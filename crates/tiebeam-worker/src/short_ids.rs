//! [`ShortIds`]: short names for metrics, so that what stays the same is told once and not with every bundle.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::Message;
use tiebeam_model::pipeline::MonitoringInfo;

/// Gives the same metric of the same thing the same id, as long as the worker lives.
#[derive(Default)]
pub(crate) struct ShortIds {
    /// What all ids begin with.
    prefix: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the encoded info without its payload.
    ids: HashMap<Vec<u8>, usize>,
    infos: Vec<MonitoringInfo>,
}

impl ShortIds {
    /// Ids that no other worker gives: Prism keeps those of all workers of a job in one table, whatever their language.
    pub(crate) fn unlike_others() -> Self {
        // Beam's own SDKs count in digits and small letters.
        let number = RandomState::new().hash_one(std::process::id());
        ShortIds { prefix: format!("T{:06x}.", number & 0xff_ffff), known: Mutex::default() }
    }

    /// The payloads by id.
    pub(crate) fn of(&self, infos: &[MonitoringInfo]) -> BTreeMap<String, Bytes> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = |info: &MonitoringInfo, known: &mut Known| format!("{}{}", self.prefix, known.id(info));
        infos.iter().map(|info| (id(info, &mut known), info.payload.clone())).collect()
    }

    /// What those ids stand for, without payloads.
    ///
    /// # Errors
    /// When one was never given.
    pub(crate) fn infos(&self, ids: &[String]) -> Result<BTreeMap<String, MonitoringInfo>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let info = |id: &String| {
            let number = id.strip_prefix(self.prefix.as_str());
            let index = number.and_then(|number| {
                usize::from_str_radix(number, 36).ok().filter(|index| short(*index) == *number)
            });
            let info = index.and_then(|index| known.infos.get(index.checked_sub(1)?));
            info.map(|info| (id.clone(), info.clone())).ok_or_else(|| {
                Error::new(ErrorKind::InvalidData, "TB0552", format!("no metric has the short id `{id}`"))
            })
        };
        ids.iter().map(info).collect()
    }
}

impl Known {
    fn id(&mut self, info: &MonitoringInfo) -> String {
        let bare = MonitoringInfo { payload: Bytes::new(), ..info.clone() };
        let next = self.infos.len() + 1;
        let index = *self.ids.entry(bare.encode_to_vec()).or_insert(next);
        if index == next {
            self.infos.push(bare);
        }
        short(index)
    }
}

/// A number in as few letters as there are for it.
fn short(mut index: usize) -> String {
    let mut digits = Vec::new();
    while index > 0 {
        digits.push(char::from_digit((index % 36) as u32, 36).unwrap_or_default());
        index /= 36;
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::{element_count, read_index};

    #[test]
    fn two_workers_give_no_id_in_common() {
        let infos = [element_count("a", 1)];
        let (one, other) = (ShortIds::unlike_others(), ShortIds::unlike_others());
        assert_ne!(one.of(&infos), other.of(&infos));
        let ids: Vec<String> = one.of(&infos).into_keys().collect();
        assert_eq!(one.infos(&ids).unwrap().len(), 1);
        assert!(other.infos(&ids).is_err());
    }

    #[test]
    fn the_same_metric_of_the_same_thing_has_the_same_id() {
        let ids = ShortIds::default();
        let first = ids.of(&[element_count("a", 300), element_count("b", 2), read_index("a", 1)]);
        assert_eq!(first.keys().collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(&first["1"][..], [0xac, 2]);
        let again = ids.of(&[read_index("a", 7), element_count("c", 0), element_count("a", 4)]);
        assert_eq!(again.keys().collect::<Vec<_>>(), ["1", "3", "4"]);
        assert_eq!((&again["1"][..], &again["3"][..]), (&[4][..], &[7][..]));
        let infos = ids.infos(&["3".to_owned(), "1".to_owned()]).unwrap();
        assert_eq!(infos["3"], MonitoringInfo { payload: Bytes::new(), ..read_index("a", 0) });
        assert_eq!(infos["1"].labels["PCOLLECTION"], "a");
    }

    #[test]
    fn ids_are_short_and_unknown_ones_errors() {
        let ids = ShortIds::default();
        let many: Vec<_> = (0..2_000).map(|n| element_count(&n.to_string(), n)).collect();
        let given = ids.of(&many);
        assert_eq!(given.len(), 2_000);
        assert!(given.keys().all(|id| id.len() <= 3));
        let all: Vec<String> = given.keys().cloned().collect();
        assert_eq!(ids.infos(&all).unwrap().len(), 2_000);
        for unknown in ["0", "", "01", "+1", "zzzz", "A", "-1", "99999999999999999999999"] {
            let error = ids.infos(&["1".to_owned(), unknown.to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), format!("no metric has the short id `{unknown}`"));
        }
        assert!(ids.infos(&[]).unwrap().is_empty());
    }
}
