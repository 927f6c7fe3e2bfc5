//! Threads for what would hold up everybody else.
//!
//! A copy-up of a large file or a sync may take seconds, and the few threads that read requests
//! must never all wait for one (`BusyPoll::slow_work`). What they cannot take goes to at most
//! [`THREADS`] others, in the order of the requests; a thread ends when nothing is left.
//!
//! Invariants: whatever is submitted is run; work that panics costs nobody else anything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::replies::guarded;

/// How many may be under way; further ones wait.
const THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
}

/// The queue.
#[derive(Clone, Default)]
pub(super) struct Slow {
    queue: Arc<Mutex<Queue>>,
}

impl Slow {
    /// Runs `job` on another thread, soon.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.lock();
        queue.waiting.push_back(Box::new(job));
        if queue.running == THREADS {
            return;
        }
        queue.running += 1;
        drop(queue);
        let slow = self.clone();
        if let Err(error) =
            std::thread::Builder::new().name("slow".to_owned()).spawn(move || slow.run())
        {
            tracing::warn!("cannot start a thread: {error}; the requests behind this one wait");
            self.run();
        }
    }

    fn run(&self) {
        loop {
            let mut queue = self.lock();
            let Some(job) = queue.waiting.pop_front() else {
                queue.running -= 1;
                return;
            };
            drop(queue);
            guarded(job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn everything_is_run_also_after_panics_and_never_too_much_at_once() {
        let slow = Slow::default();
        let (sender, done) = mpsc::channel();
        let under_way = Arc::new(Mutex::new((0, 0)));
        for index in 0..100 {
            let (sender, under_way) = (sender.clone(), Arc::clone(&under_way));
            slow.submit(move || {
                {
                    let mut count = under_way.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.0.max(count.1);
                }
                std::thread::yield_now();
                under_way.lock().unwrap().0 -= 1;
                sender.send(index).unwrap();
                assert!(index % 7 != 0, "on purpose");
            });
        }
        drop(sender);
        let mut all: Vec<i32> = done.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(under_way.lock().unwrap().1 <= THREADS);
    }
}
