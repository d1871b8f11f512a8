//! `Retry-After`: how long a server wants to be left alone.

use std::time::{Duration, SystemTime};

/// Longer than any server means, and short enough to reckon with.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the header says, from now on: seconds, which some servers give as a fraction, or a date. A date is told by the
/// server's own clock where it also says what that shows (`date`), else by ours (`now`).
pub(crate) fn retry_after(header: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if header.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        if let Ok(seconds) = header.parse::<u64>() {
            return Some(Duration::from_secs(seconds).min(LONGEST));
        }
        let seconds = header.parse::<f64>().ok()?;
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST));
    }
    let until = httpdate::parse_http_date(header).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = httpdate::parse_http_date("Mon, 23 Nov 2026 04:00:00 GMT").unwrap();
        let read = |header| retry_after(header, None, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read(" 0 "), Some(Duration::ZERO));
        assert_eq!(read("0.05"), Some(Duration::from_millis(50)));
        assert_eq!(read("Mon, 23 Nov 2026 04:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Monday, 23-Nov-26 04:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Mon Nov 23 04:00:30 2026"), Some(Duration::from_secs(30)));
        assert_eq!(read("Mon, 23 Nov 2026 03:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999999"), Some(LONGEST));
        assert_eq!(read("18446744073709551615"), Some(LONGEST));
        for nonsense in ["", "soon", "-1", "1e3", "NaN", "inf", "1.2.3", ".", "Mon, 99 Nov 2026 03:00:00 GMT"]
        {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_date_is_told_by_the_servers_own_clock() {
        let ours = httpdate::parse_http_date("Mon, 23 Nov 2026 09:00:00 GMT").unwrap();
        let (header, date) = ("Mon, 23 Nov 2026 04:00:30 GMT", "Mon, 23 Nov 2026 04:00:10 GMT");
        assert_eq!(retry_after(header, Some(date), ours), Some(Duration::from_secs(20)));
        assert_eq!(retry_after(header, Some("?"), ours), Some(Duration::ZERO));
    }
}
