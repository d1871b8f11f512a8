//! Paths in Google Cloud Storage.

use std::fmt;

/// `gs://BUCKET/NAME`, where the name may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GsPath {
    /// The bucket.
    pub bucket: String,
    /// The object's name, or the beginning of names; without a slash at either end.
    pub name: String,
}

impl GsPath {
    /// Reads one; else tells what is wrong with it.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<GsPath, String> {
        let wanted = || format!("is `{text}`; wanted gs://BUCKET or gs://BUCKET/FOLDER");
        let rest = text.strip_prefix("gs://").ok_or_else(wanted)?;
        let (bucket, name) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let ends =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = bucket.as_bytes();
        let fits = (3..=222).contains(&bytes.len()) && bytes.iter().copied().all(plain);
        if !fits || !ends(bytes.first()) || !ends(bytes.last()) {
            return Err(wanted());
        }
        let name = name.trim_matches('/');
        if name.len() > 800
            || name.chars().any(|c| c.is_control() || "*?[]#".contains(c))
            || name.contains("//")
        {
            return Err(wanted());
        }
        Ok(GsPath { bucket: bucket.to_owned(), name: name.to_owned() })
    }

    /// What lies below it under a name.
    #[must_use]
    pub fn join(&self, more: &str) -> GsPath {
        let name = if self.name.is_empty() { more.to_owned() } else { format!("{}/{more}", self.name) };
        GsPath { bucket: self.bucket.clone(), name }
    }

    /// As Google's services name resources.
    pub(crate) fn resource(&self) -> String {
        format!("storage.googleapis.com/{}", self.to_string().trim_start_matches("gs://"))
    }
}

impl fmt::Display for GsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "gs://{}", self.bucket)
        } else {
            write!(f, "gs://{}/{}", self.bucket, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_joined_and_written() {
        for (text, bucket, name) in [
            ("gs://b-1", "b-1", ""),
            ("gs://b-1/", "b-1", ""),
            ("gs://b.x/a/b/", "b.x", "a/b"),
            ("gs://b_1/é x", "b_1", "é x"),
        ] {
            let path = GsPath::parse(text).unwrap();
            assert_eq!((path.bucket.as_str(), path.name.as_str()), (bucket, name), "{text}");
        }
        let path = GsPath::parse("gs://bucket").unwrap();
        assert_eq!(path.join("a").join("b").to_string(), "gs://bucket/a/b");
        assert_eq!(path.join("a").resource(), "storage.googleapis.com/bucket/a");
        for text in [
            "",
            "bucket/a",
            "s3://bucket",
            "gs://",
            "gs:///a",
            "gs://B/a",
            "gs://ab",
            "gs://-ab",
            "gs://abc/a//b",
            "gs://abc/*",
            "gs://abc/a\nb",
        ] {
            assert!(GsPath::parse(text).is_err(), "{text}");
        }
    }
}
