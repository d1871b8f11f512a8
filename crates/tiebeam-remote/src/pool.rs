//! A small pool of threads on which requests wait for their answers. It holds no more threads than requests may be in
//! flight; that is the bound on concurrency.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job tells of its panic itself; the thread goes on.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state();
            } else if state.closed {
                state.threads -= 1;
                return;
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// Threads that are started as they are needed, and end when the pool goes.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    most: usize,
}

impl Pool {
    pub(crate) fn new(most: usize) -> Self {
        Pool { shared: Arc::default(), most: most.max(1) }
    }

    /// Runs a job as soon as a thread is free; jobs are begun in their order.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle || state.threads == self.most {
            drop(state);
            self.shared.wake.notify_one();
            return;
        }
        let shared = self.shared.clone();
        let started =
            std::thread::Builder::new().name("tiebeam-remote".to_owned()).spawn(move || shared.work());
        match started {
            Ok(_) => state.threads += 1,
            // The system has no thread to give: the others do it, or, if there are none, whoever asks.
            Err(_) if state.threads > 0 => {}
            Err(_) => {
                let job = state.jobs.pop_back();
                drop(state);
                if let Some(job) = job {
                    job();
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_jobs_run_and_no_more_than_allowed_at_once() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pool = Pool::new(3);
        let (tx, rx) = mpsc::channel();
        for i in 0..200 {
            let (running, most, tx) = (running.clone(), most.clone(), tx.clone());
            pool.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                tx.send(i).unwrap();
                assert!(i % 7 != 0, "a job may panic");
            });
        }
        drop(tx);
        let mut done = rx.iter().collect::<Vec<_>>();
        done.sort_unstable();
        assert_eq!(done, (0..200).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
        let shared = pool.shared.clone();
        drop(pool);
        // The threads let go of what they share when they end.
        while Arc::strong_count(&shared) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(shared.state().threads, 0);
    }
}
