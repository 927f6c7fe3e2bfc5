//! Threads that run wherever there is room.
//!
//! A thread inherits what processors the one that starts it is bound to, and whoever answers
//! requests may be bound to the processor of its caller: work that is to go on beside that would
//! take turns with both.
//!
//! Invariant: nothing but speed depends on the processors.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Starts threads. They may run on the processors that its maker was allowed.
#[derive(Debug, Clone)]
pub struct Threads {
    name: &'static str,
    /// `None` if that cannot be told.
    processors: Option<CpuSet>,
}

impl Threads {
    /// For threads of this name.
    pub fn new(name: &'static str) -> Self {
        Self { name, processors: sched_getaffinity(None).ok() }
    }

    /// Starts one, detached.
    ///
    /// # Errors
    /// What the system says: no memory, or too many threads.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let processors = self.processors;
        let thread = std::thread::Builder::new().name(self.name.to_owned());
        let started = thread.spawn(move || {
            if let Some(processors) = processors {
                let _ = sched_setaffinity(None, &processors);
            }
            work();
        });
        started.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_is_not_bound_as_the_one_that_starts_it() {
        let all = sched_getaffinity(None).unwrap();
        let threads = Threads::new("test");
        let first = (0..CpuSet::MAX_CPU).find(|&p| all.is_set(p)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        let (sender, told) = mpsc::channel();
        threads.start(move || sender.send(sched_getaffinity(None).unwrap()).unwrap()).unwrap();
        assert_eq!(told.recv().unwrap(), all);
        assert_eq!(sched_getaffinity(None).unwrap(), one);
    }
}
