//! Where the threads that answer run: on the processor of the process that asks.
//!
//! A request is a hand-over: the caller sleeps until it is answered. The kernel wakes us on an
//! idle processor if there is one, and the caller again on its own; waking a processor that has
//! gone to sleep costs several times what the request itself does, most of all on virtual
//! machines. On one processor the two just take turns.
//!
//! ```text
//! one caller, request by request      -> its processor is looked up, and every thread moves there
//! callers that take turns (parallel)  -> the threads may run anywhere, as they came
//! ```
//!
//! Invariants: nothing but speed depends on this; a thread is never bound where we were not
//! allowed to run at the start; what cannot be found out or is refused leaves the threads free.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// So many requests of one caller in a row, and it is worth looking where it runs.
const STREAK: u32 = 16;
/// So many requests later it may run elsewhere: the scheduler moves it too.
const LEASE: u32 = 256;
/// What a change back to the caller before counts, in requests of one and the same caller.
const TURN: u32 = 16;
/// Callers take turns from here on, and no more below a quarter of it.
const PARALLEL: u32 = 256;
/// No processor: run anywhere.
const ANYWHERE: usize = usize::MAX;

thread_local! {
    static BOUND: Cell<usize> = const { Cell::new(ANYWHERE) };
}

/// What one mount knows of its callers. All of it is a guess, so nothing is ordered or locked.
#[derive(Debug)]
pub(crate) struct Nearness {
    /// Where we may run; `None` if that is one processor, or unknown.
    all: Option<CpuSet>,
    caller: AtomicU32,
    before: AtomicU32,
    streak: AtomicU32,
    /// Requests since the last look.
    since: AtomicU32,
    turns: AtomicU32,
    place: AtomicUsize,
}

impl Nearness {
    pub(crate) fn new() -> Self {
        let all = sched_getaffinity(None).ok().filter(|all| all.count() > 1);
        Self {
            all,
            caller: AtomicU32::new(0),
            before: AtomicU32::new(0),
            streak: AtomicU32::new(0),
            since: AtomicU32::new(0),
            turns: AtomicU32::new(0),
            place: AtomicUsize::new(ANYWHERE),
        }
    }

    /// A request of thread `pid` is about to be answered on this thread.
    pub(crate) fn asked_by(&self, pid: u32) {
        // 0: by the kernel itself, or from outside of our name space.
        let (Some(all), true) = (&self.all, pid != 0) else { return };
        if self.is_due(pid) {
            let place = if self.is_parallel() { None } else { processor_of(pid) };
            let place = place.filter(|cpu| *cpu < CpuSet::MAX_CPU && all.is_set(*cpu));
            self.place.store(place.unwrap_or(ANYWHERE), Ordering::Relaxed);
        }
        let place = self.place.load(Ordering::Relaxed);
        if BOUND.get() != place {
            bind(all, place);
        }
    }

    /// This thread is not for answering: it runs wherever there is room.
    pub(crate) fn leave(&self) {
        if let Some(all) = &self.all {
            bind(all, ANYWHERE);
        }
    }

    /// Notes the caller; whether it is time to look where it runs.
    fn is_due(&self, pid: u32) -> bool {
        let last = self.caller.swap(pid, Ordering::Relaxed);
        let turns = self.turns.load(Ordering::Relaxed);
        let streak = if last == pid {
            self.turns.store(turns.saturating_sub(1), Ordering::Relaxed);
            self.streak.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
        } else {
            self.streak.store(0, Ordering::Relaxed);
            if self.before.swap(last, Ordering::Relaxed) == pid {
                self.turns.store((turns + TURN).min(2 * PARALLEL), Ordering::Relaxed);
            }
            0
        };
        let since = self.since.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let due = streak == STREAK || since >= LEASE;
        if due {
            self.since.store(0, Ordering::Relaxed);
        }
        due
    }

    fn is_parallel(&self) -> bool {
        let bound = self.place.load(Ordering::Relaxed) != ANYWHERE;
        let from = if bound { PARALLEL } else { PARALLEL / 4 };
        self.turns.load(Ordering::Relaxed) >= from
    }
}

/// Moves this thread. What is refused is not tried again until there is another place.
fn bind(all: &CpuSet, place: usize) {
    let mut one = CpuSet::new();
    let to = match place {
        ANYWHERE => all,
        cpu => {
            one.set(cpu);
            &one
        }
    };
    if let Err(error) = sched_setaffinity(None, to) {
        tracing::debug!("cannot choose the processor to answer on: {error}");
    }
    BOUND.set(place);
}

/// The processor on which a thread runs or ran last, the 39th field of proc_pid_stat(5).
fn processor_of(pid: u32) -> Option<usize> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, is in parentheses and may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let field = stat[end..].split(|byte| *byte == b' ').nth(39 - 2)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_read_where_the_name_is_no_trap() {
        let bound = Nearness::new();
        let Some(all) = &bound.all else { return };
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).take(2) {
            bind(all, cpu);
            assert_eq!(processor_of(me), Some(cpu));
        }
        bound.leave();
        assert_eq!(sched_getaffinity(None).unwrap(), *all);
        assert_eq!(processor_of(u32::MAX), None);
    }

    #[test]
    fn one_caller_draws_the_threads_and_many_let_them_go() {
        let near = Nearness::new();
        let Some(all) = &near.all else { return };
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        for _ in 0..=STREAK {
            near.asked_by(me);
        }
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        let other = std::process::id().max(2) - 1;
        for _ in 0..2 * LEASE {
            near.asked_by(me);
            near.asked_by(other);
        }
        assert_eq!(sched_getaffinity(None).unwrap(), *all);
        for _ in 0..(2 * PARALLEL + LEASE) {
            near.asked_by(me);
        }
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        near.leave();
    }

    #[test]
    fn requests_of_nobody_change_nothing() {
        let near = Nearness::new();
        let before = sched_getaffinity(None).unwrap();
        for _ in 0..4 * LEASE {
            near.asked_by(0);
        }
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
