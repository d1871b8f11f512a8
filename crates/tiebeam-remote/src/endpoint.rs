//! An endpoint as this process knows it: when it wants to be left alone, how it did lately, how fast it may be asked. All
//! handlers of the process that ask the same endpoint share it, so that one that is told to wait makes all wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::random::Random;
use crate::settings::Throttle;
use crate::time::Time;

/// How finely the window is divided.
const BUCKETS: u32 = 60;

/// What this process did with an endpoint so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteStats {
    /// The endpoint.
    pub endpoint: String,
    /// The requests that were sent, each try counted.
    pub requests: u64,
    /// Those that were sent again after a failure that passes.
    pub retries: u64,
    /// The tries that ended with a good answer.
    pub answered: u64,
    /// The tries that the endpoint refused as it will again (most of 4xx).
    pub refused: u64,
    /// The tries that the endpoint refused because it is asked too much (429).
    pub too_many_requests: u64,
    /// The tries that failed otherwise for a reason that passes: 408, 5xx, no connection, no answer, half an answer.
    pub failed: u64,
    /// How often a request was held back because the endpoint failed too much lately.
    pub throttled: u64,
    /// How long requests were held back for that.
    pub throttled_ms: u64,
    /// How long requests waited because the endpoint asked for it (`Retry-After`).
    pub asked_to_wait_ms: u64,
    /// How long requests waited for the rate limit.
    pub rate_limited_ms: u64,
}

/// What counts up in [`RemoteStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Requests,
    Retries,
    Answered,
    Refused,
    TooMany,
    Failed,
    Throttled,
    ThrottledUs,
    AskedUs,
    LimitedUs,
}

/// The counts of an endpoint, or of one who asks it.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; 10]);

impl Counters {
    fn add(&self, what: Count, n: u64) {
        self.0[what as usize].fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self, what: Count) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self, endpoint: &str) -> RemoteStats {
        RemoteStats {
            endpoint: endpoint.to_owned(),
            requests: self.get(Count::Requests),
            retries: self.get(Count::Retries),
            answered: self.get(Count::Answered),
            refused: self.get(Count::Refused),
            too_many_requests: self.get(Count::TooMany),
            failed: self.get(Count::Failed),
            throttled: self.get(Count::Throttled),
            throttled_ms: self.get(Count::ThrottledUs) / 1000,
            asked_to_wait_ms: self.get(Count::AskedUs) / 1000,
            rate_limited_ms: self.get(Count::LimitedUs) / 1000,
        }
    }
}

impl RemoteStats {
    /// The counts as metrics name them, for [`ModelHandler::counts`](tiebeam_inference::ModelHandler::counts).
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("remote_requests", self.requests),
            ("remote_retries", self.retries),
            ("remote_answered", self.answered),
            ("remote_refused", self.refused),
            ("remote_too_many_requests", self.too_many_requests),
            ("remote_failed", self.failed),
            ("remote_throttled", self.throttled),
            ("remote_throttled_msecs", self.throttled_ms),
            ("remote_asked_to_wait_msecs", self.asked_to_wait_ms),
            ("remote_rate_limited_msecs", self.rate_limited_ms),
        ]
    }
}

/// The endpoint asks for more time than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLate {
    /// How long it would have to wait.
    pub(crate) wait: Duration,
    /// What for.
    pub(crate) why: &'static str,
}

#[derive(Debug)]
struct State {
    /// No request is sent before.
    closed_until: Duration,
    /// When the rate limit allows the next request.
    next: Duration,
    /// Number of the bucket, requests in it, those that were accepted.
    window: VecDeque<(u64, u64, u64)>,
    random: Random,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) time: Arc<dyn Time>,
    state: Mutex<State>,
    counters: Counters,
}

type Registry = BTreeMap<(String, usize), Arc<Endpoint>>;

/// Endpoints stay for the life of the process: there are few, and what they asked for still holds in the next run.
static ENDPOINTS: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn endpoints() -> MutexGuard<'static, Registry> {
    ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process did with each endpoint so far.
pub fn stats() -> Vec<RemoteStats> {
    endpoints().values().map(|endpoint| endpoint.stats()).collect()
}

impl Endpoint {
    /// The endpoint of that name, for those who go by that clock.
    pub(crate) fn of(name: &str, time: &Arc<dyn Time>, seed: Option<u64>) -> Arc<Endpoint> {
        let clock = Arc::as_ptr(time).cast::<()>() as usize;
        let new = || {
            let state = State {
                closed_until: Duration::ZERO,
                next: Duration::ZERO,
                window: VecDeque::new(),
                random: Random::new(seed),
            };
            Arc::new(Endpoint {
                name: name.to_owned(),
                time: time.clone(),
                state: Mutex::new(state),
                counters: Counters::default(),
            })
        };
        endpoints().entry((name.to_owned(), clock)).or_insert_with(new).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts for itself and for whoever asks it.
    pub(crate) fn count(&self, own: &Counters, what: Count, n: u64) {
        self.counters.add(what, n);
        own.add(what, n);
    }

    /// Waits until a request may be sent, at most until `deadline`.
    pub(crate) fn admit(
        &self,
        deadline: Duration,
        interval: Option<Duration>,
        throttle: Option<&Throttle>,
        own: &Counters,
    ) -> Result<(), TooLate> {
        loop {
            let (wait, why, what) = {
                let mut state = self.state();
                let now = self.time.now();
                if now >= deadline {
                    let why = "the requests before it took all of the time";
                    return Err(TooLate { wait: Duration::ZERO, why });
                }
                if now < state.closed_until {
                    let wait = state.closed_until - now;
                    (wait, "the endpoint asks to be left alone", Count::AskedUs)
                } else if let Some(throttle) = throttle
                    && state.is_held_back(now, throttle.window)
                {
                    self.count(own, Count::Throttled, 1);
                    (throttle.delay, "the endpoint failed too often lately", Count::ThrottledUs)
                } else if interval.is_some() && now < state.next {
                    (state.next - now, "the rate limit allows no more requests", Count::LimitedUs)
                } else {
                    state.next = now + interval.unwrap_or_default();
                    self.count(own, Count::Requests, 1);
                    return Ok(());
                }
            };
            if self.time.now() + wait >= deadline {
                return Err(TooLate { wait, why });
            }
            self.count(own, what, u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
            self.time.sleep(wait);
        }
    }

    /// No request is sent for that long from now on, by nobody.
    pub(crate) fn close_for(&self, time: Duration) {
        let mut state = self.state();
        let until = self.time.now() + time;
        state.closed_until = state.closed_until.max(until);
    }

    /// Notes how a request ended: whether the endpoint took it, whatever it then said.
    pub(crate) fn note(&self, accepted: bool, throttle: Option<&Throttle>) {
        let Some(throttle) = throttle else { return };
        let bucket = bucket(self.time.now(), throttle.window);
        let mut state = self.state();
        match state.window.back_mut() {
            Some((last, all, ok)) if *last >= bucket => {
                *all += 1;
                *ok += u64::from(accepted);
            }
            _ => state.window.push_back((bucket, 1, u64::from(accepted))),
        }
    }

    /// Any time up to twice the last pause: full jitter, so that those who failed together don't come back together.
    pub(crate) fn pause(&self, first: Duration, longest: Duration, attempts: u32) -> Duration {
        let most = first.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(longest);
        most.mul_f64(self.state().random.unit())
    }

    pub(crate) fn stats(&self) -> RemoteStats {
        self.counters.stats(&self.name)
    }
}

/// The number of the bucket of a window that a moment falls into.
fn bucket(now: Duration, window: Duration) -> u64 {
    let width = (window / BUCKETS).as_nanos().max(1);
    u64::try_from(now.as_nanos() / width).unwrap_or(u64::MAX)
}

impl State {
    /// Rolls the dice of adaptive throttling: requests are held back with the probability by which those of the window
    /// exceed twice the accepted ones.
    fn is_held_back(&mut self, now: Duration, window: Duration) -> bool {
        let oldest = bucket(now, window).saturating_sub(u64::from(BUCKETS) - 1);
        while self.window.front().is_some_and(|(bucket, ..)| *bucket < oldest) {
            self.window.pop_front();
        }
        let (all, ok) = self.window.iter().fold((0, 0), |(all, ok), (_, a, o)| (all + a, ok + o));
        self.random.unit() < share_held_back(all, ok)
    }
}

fn share_held_back(all: u64, ok: u64) -> f64 {
    all.saturating_sub(ok.saturating_mul(2)) as f64 / (all + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::fake::FakeTime;

    const THROTTLE: Throttle = Throttle { window: Duration::from_secs(60), delay: Duration::from_secs(1) };
    const FAR: Duration = Duration::from_secs(10_000);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn endpoint(name: &str) -> (Arc<FakeTime>, Arc<Endpoint>) {
        let fake = Arc::new(FakeTime::default());
        let time: Arc<dyn Time> = fake.clone();
        (fake, Endpoint::of(name, &time, Some(1)))
    }

    #[test]
    fn one_is_told_and_all_wait() {
        let fake = Arc::new(FakeTime::default());
        let time: Arc<dyn Time> = fake.clone();
        let (one, other) = (Endpoint::of("e", &time, None), Endpoint::of("e", &time, None));
        one.close_for(secs(7));
        one.close_for(secs(3));
        other.admit(FAR, None, None, &Counters::default()).unwrap();
        assert_eq!(fake.now(), secs(7));
        other.admit(FAR, None, None, &Counters::default()).unwrap();
        assert_eq!(fake.now(), secs(7));
        assert_eq!(one.stats().asked_to_wait_ms, 7000);
        assert_eq!(one.stats().requests, 2);
        Endpoint::of("f", &time, None).admit(FAR, None, None, &Counters::default()).unwrap();
        assert_eq!(fake.now(), secs(7));
        assert!(stats().iter().any(|stats| stats.endpoint == "e"));
    }

    #[test]
    fn nobody_waits_beyond_the_deadline() {
        let (fake, endpoint) = endpoint("late");
        endpoint.close_for(secs(100));
        let late = endpoint.admit(secs(100), None, None, &Counters::default()).unwrap_err();
        assert_eq!(late.wait, secs(100));
        assert_eq!(
            endpoint.admit(Duration::ZERO, None, None, &Counters::default()).unwrap_err().wait,
            Duration::ZERO
        );
        assert_eq!(fake.now(), Duration::ZERO);
        endpoint.admit(secs(101), None, None, &Counters::default()).unwrap();
    }

    #[test]
    fn the_rate_is_kept() {
        let (fake, endpoint) = endpoint("rate");
        let interval = Some(Duration::from_millis(250));
        for _ in 0..9 {
            endpoint.admit(FAR, interval, None, &Counters::default()).unwrap();
        }
        assert_eq!(fake.now(), secs(2));
        assert_eq!(endpoint.stats().rate_limited_ms, 2000);
        fake.advance(secs(10));
        // Time that passed unused allows no burst.
        endpoint.admit(FAR, interval, None, &Counters::default()).unwrap();
        endpoint.admit(FAR, interval, None, &Counters::default()).unwrap();
        assert_eq!(fake.now(), Duration::from_millis(12_250));
    }

    #[test]
    fn the_share_held_back_is_the_one_of_the_formula() {
        assert_eq!(share_held_back(0, 0), 0.0);
        assert_eq!(share_held_back(1, 0), 0.5);
        assert_eq!(share_held_back(9, 0), 0.9);
        assert_eq!(share_held_back(9, 4), 0.1);
        assert_eq!(share_held_back(9, 5), 0.0);
        assert_eq!(share_held_back(u64::MAX - 1, u64::MAX - 1), 0.0);
    }

    #[test]
    fn an_endpoint_that_fails_is_asked_less_until_the_window_has_passed() {
        let (fake, endpoint) = endpoint("throttle");
        for _ in 0..99 {
            endpoint.note(false, Some(&THROTTLE));
        }
        // 99 of 100 draws hold it back for a second: it waits, and is admitted at last when the window has passed.
        endpoint.admit(FAR, None, Some(&THROTTLE), &Counters::default()).unwrap();
        let stats = endpoint.stats();
        assert!(stats.throttled > 0 && fake.now() <= secs(60), "{stats:?} {fake:?}");
        assert_eq!(stats.throttled_ms, stats.throttled * 1000);
        assert_eq!(fake.sleeps().len() as u64, stats.throttled);
        fake.advance(secs(61));
        let before = endpoint.stats().throttled;
        endpoint.admit(FAR, None, Some(&THROTTLE), &Counters::default()).unwrap();
        assert_eq!(endpoint.stats().throttled, before);
        for _ in 0..1000 {
            endpoint.note(true, Some(&THROTTLE));
            endpoint.note(false, Some(&THROTTLE));
            endpoint.admit(FAR, None, Some(&THROTTLE), &Counters::default()).unwrap();
        }
        assert_eq!(endpoint.stats().throttled, before, "half of them accepted holds nothing back");
    }

    #[test]
    fn pauses_grow_and_are_jittered() {
        let (_, endpoint) = endpoint("pause");
        let (first, longest) = (Duration::from_millis(100), Duration::from_millis(1500));
        for attempts in [1, 2, 3, 4, 5, 100, u32::MAX] {
            let most = Duration::from_millis(
                [0, 100, 200, 400, 800].get(attempts as usize).copied().unwrap_or(1500),
            );
            let drawn = (0..200).map(|_| endpoint.pause(first, longest, attempts)).collect::<Vec<_>>();
            let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(
                *high <= most && *high > most * 9 / 10 && *low < most / 10,
                "{attempts}: {low:?} {high:?}"
            );
        }
    }
}
