//! `datetime` in templates, as Beam gives it: what time it is, and how that is written.
//!
//! The time is that of the template: it stands in the variables, so that workers that render the same text later make the
//! same pipeline of it. It is UTC, which Python's `now` is where a machine's zone is.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind, State};

use crate::template::Variables;

/// The variable that holds the time, in microseconds since 1970.
const NOW: &str = "__now__";

/// The variables with the time, where the text asks for it and they don't have it yet.
#[must_use]
pub fn timed(text: &str, mut variables: Variables) -> Variables {
    if text.contains("datetime") && !variables.contains_key(NOW) {
        variables.insert(NOW.to_owned(), now().into());
    }
    variables
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Python's module, at the time that the variables tell, or else now.
pub fn module(variables: &Variables) -> Value {
    let now = variables.get(NOW).and_then(serde_json::Value::as_i64).unwrap_or_else(now);
    Value::from_object(Module { now })
}

/// Whether a variable is one of ours, of which users are told nothing.
pub fn is_own(name: &str) -> bool {
    name == NOW
}

#[derive(Debug)]
struct Module {
    now: i64,
}

impl Object for Module {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let class = |dates| Value::from_object(Class { now: self.now, dates });
        match key.as_str()? {
            "datetime" => Some(class(false)),
            "date" => Some(class(true)),
            "timezone" => Some(Value::from_pairs([("utc", Value::from("UTC"))])),
            "UTC" => Some(Value::from("UTC")),
            _ => None,
        }
    }
}

/// `datetime.datetime` or `datetime.date`.
#[derive(Debug)]
struct Class {
    now: i64,
    dates: bool,
}

impl Object for Class {
    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        match (method, arguments.len()) {
            ("now", 0 | 1) | ("utcnow", 0) if !self.dates => Ok(self.at(self.now)),
            ("today", 0) => Ok(self.at(self.now)),
            ("fromtimestamp" | "utcfromtimestamp", 1 | 2) => {
                let seconds = f64::try_from(arguments[0].clone())?;
                // Years of four digits.
                if !(-62_135_596_800.0..=253_402_300_799.0).contains(&seconds) {
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        format!("{seconds} is no time of a year up to 9999"),
                    ));
                }
                Ok(self.at((seconds * 1e6).round() as i64))
            }
            _ => Err(unknown(method)),
        }
    }
}

impl Class {
    fn at(&self, micros: i64) -> Value {
        let micros = if self.dates { micros.div_euclid(DAY) * DAY } else { micros };
        Value::from_object(Moment { micros, date: self.dates })
    }
}

fn unknown(method: &str) -> Error {
    let message = format!("datetime has no method named {method} here");
    Error::new(ErrorKind::UnknownMethod, message)
}

const DAY: i64 = 86_400_000_000;
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time, or a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    micros: i64,
    date: bool,
}

impl Moment {
    fn days(self) -> i64 {
        self.micros.div_euclid(DAY)
    }

    /// Year, month and day: March is the first month of a year here, so that a leap day is its last one.
    fn civil(self) -> (i64, i64, i64) {
        let days = self.days() + 719_468;
        let era = days.div_euclid(146_097);
        let day = days.rem_euclid(146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
        (year + i64::from(month <= 2), month, of_month)
    }

    /// Hour, minute, second and microsecond.
    fn clock(self) -> [i64; 4] {
        let micros = self.micros.rem_euclid(DAY);
        let seconds = micros / 1_000_000;
        [seconds / 3_600, seconds / 60 % 60, seconds % 60, micros % 1_000_000]
    }

    /// 0 on a Monday; 1970 began on a Thursday.
    fn weekday(self) -> i64 {
        (self.days() + 3).rem_euclid(7)
    }

    fn day_of_year(self) -> i64 {
        let (year, month, day) = self.civil();
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        lengths.iter().zip(1..month).map(|(length, _)| length).sum::<i64>() + day
    }

    fn iso(self, between: char) -> String {
        let (year, month, day) = self.civil();
        let date = format!("{year:04}-{month:02}-{day:02}");
        if self.date {
            return date;
        }
        let [hour, minute, second, micros] = self.clock();
        let fraction = if micros > 0 { format!(".{micros:06}") } else { String::new() };
        format!("{date}{between}{hour:02}:{minute:02}:{second:02}{fraction}")
    }

    fn strftime(self, format: &str) -> Result<String, Error> {
        let (year, month, day) = self.civil();
        let [hour, minute, second, micros] = self.clock();
        let named = |all: &[&'static str], at: i64| {
            usize::try_from(at).ok().and_then(|at| all.get(at).copied()).unwrap_or_default()
        };
        let (month_name, day_name) = (named(&MONTHS, month - 1), named(&DAYS, self.weekday()));
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let code = chars.next();
            out.push_str(&match code {
                Some('Y') => format!("{year:04}"),
                Some('y') => format!("{:02}", year % 100),
                Some('m') => format!("{month:02}"),
                Some('d') => format!("{day:02}"),
                Some('e') => format!("{day:2}"),
                Some('H') => format!("{hour:02}"),
                Some('I') => format!("{twelve:02}"),
                Some('M') => format!("{minute:02}"),
                Some('S') => format!("{second:02}"),
                Some('f') => format!("{micros:06}"),
                Some('j') => format!("{:03}", self.day_of_year()),
                Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
                Some('B') => month_name.to_owned(),
                Some('b' | 'h') => month_name[..3].to_owned(),
                Some('A') => day_name.to_owned(),
                Some('a') => day_name[..3].to_owned(),
                Some('u') => (self.weekday() + 1).to_string(),
                Some('w') => ((self.weekday() + 1) % 7).to_string(),
                Some('F') => format!("{year:04}-{month:02}-{day:02}"),
                Some('D') => format!("{month:02}/{day:02}/{:02}", year % 100),
                Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
                Some('R') => format!("{hour:02}:{minute:02}"),
                Some('s') => self.micros.div_euclid(1_000_000).to_string(),
                // A time without a zone has none to write.
                Some('Z' | 'z') => String::new(),
                Some('%') => "%".to_owned(),
                other => {
                    let code: String = other.into_iter().collect();
                    let message = format!("strftime has no %{code} here");
                    return Err(Error::new(ErrorKind::InvalidOperation, message));
                }
            });
        }
        Ok(out)
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let (year, month, day) = self.civil();
        let [hour, minute, second, microsecond] = self.clock();
        let found = match key.as_str()? {
            "year" => year,
            "month" => month,
            "day" => day,
            "hour" if !self.date => hour,
            "minute" if !self.date => minute,
            "second" if !self.date => second,
            "microsecond" if !self.date => microsecond,
            _ => return None,
        };
        Some(found.into())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        Ok(match (method, arguments) {
            ("strftime", [format]) if format.as_str().is_some() => {
                self.strftime(format.as_str().unwrap_or_default())?.into()
            }
            ("isoformat", []) => self.iso('T').into(),
            ("date", []) if !self.date => {
                Value::from_object(Moment { micros: self.days() * DAY, date: true })
            }
            ("timestamp", []) if !self.date => (self.micros as f64 / 1e6).into(),
            ("weekday", []) => self.weekday().into(),
            ("isoweekday", []) => (self.weekday() + 1).into(),
            _ => return Err(unknown(method)),
        })
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso(' '))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment { micros: seconds * 1_000_000, date: false }
    }

    #[test]
    fn times_are_written_as_python_writes_them() {
        let format = "%Y-%m-%d %H:%M:%S %j %a %A %b %B %I%p %u %w %y %%";
        for (seconds, wanted) in [
            (0, "1970-01-01 00:00:00 001 Thu Thursday Jan January 12AM 4 4 70 %"),
            (951_827_696, "2000-02-29 12:34:56 060 Tue Tuesday Feb February 12PM 2 2 00 %"),
            (1_709_251_199, "2024-02-29 23:59:59 060 Thu Thursday Feb February 11PM 4 4 24 %"),
            (-1, "1969-12-31 23:59:59 365 Wed Wednesday Dec December 11PM 3 3 69 %"),
            (4_107_542_400, "2100-03-01 00:00:00 060 Mon Monday Mar March 12AM 1 1 00 %"),
        ] {
            assert_eq!(at(seconds).strftime(format).unwrap(), wanted);
        }
        assert_eq!(at(951_827_696).iso('T'), "2000-02-29T12:34:56");
        assert!(at(0).strftime("%Q").is_err() && at(0).strftime("%").is_err());
    }

    #[test]
    fn templates_see_one_time() {
        let text = "{{ datetime.datetime.now().strftime('%Y/%m/%d') }} {{ datetime.date.today() }} {{ datetime.datetime.now().year }} \
                    {{ datetime.datetime.utcnow().date().isoformat() }} {{ datetime.datetime.fromtimestamp(0.5) }}";
        let mut variables = Variables::from([(NOW.to_owned(), 951_827_696_000_000i64.into())]);
        variables = timed(text, variables);
        let rendered = crate::template::render("p.yaml", text, &variables).unwrap();
        assert_eq!(&**rendered.text(), "2000/02/29 2000-02-29 2000 2000-02-29 1970-01-01 00:00:00.500000");
        assert!(timed("nothing", Variables::new()).is_empty());
        assert_eq!(timed("datetime", Variables::new()).len(), 1);
    }
}
