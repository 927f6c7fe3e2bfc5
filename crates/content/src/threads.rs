//! Work in several threads that goes on where the system gives none.
//!
//! The model: the calling thread always works too. Further threads are a wish: where the system
//! refuses one (EAGAIN: a limit of processes, no memory for a stack), the others do its work. std's
//! `Scope::spawn` panics there.
//!
//! Invariants: every job is done once; a panic in a thread is a panic of the caller, as with std.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Runs `work` here and in up to `further` more threads at once. `work` takes jobs from a queue of
/// its own, so that any number of threads, one as well, does all of them.
pub fn together(further: usize, work: impl Fn() + Sync) {
    scope(|scope| {
        for _ in 0..further {
            if Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Does each job, in up to `further` threads beside this one; the results are in the order of the
/// jobs.
pub fn each<J: Send, T: Send>(
    further: usize,
    jobs: impl IntoIterator<Item = J>,
    work: impl Fn(J) -> T + Sync,
) -> Vec<T> {
    let queue: Vec<J> = jobs.into_iter().collect();
    let done: Vec<Mutex<Option<T>>> = queue.iter().map(|_| Mutex::new(None)).collect();
    let further = further.min(queue.len().saturating_sub(1));
    let queue = Mutex::new(queue.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    together(further, || {
        while let Some((at, job)) = next() {
            let result = work(job);
            *done[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    });
    let results = done.into_iter();
    results.filter_map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Runs `aside` in another thread while `here` runs in this one; both results.
///
/// # Errors
/// The system's, if it gives no thread: then neither has run.
pub fn beside<A: Send, H>(
    aside: impl FnOnce() -> A + Send,
    here: impl FnOnce() -> H,
) -> io::Result<(A, H)> {
    scope(|scope| {
        let aside = Builder::new().spawn_scoped(scope, aside)?;
        let here = here();
        match aside.join() {
            Ok(aside) => Ok((aside, here)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        for further in [0, 1, 7] {
            assert_eq!(
                each(further, 0..100, |n| n * 2),
                (0..100).map(|n| n * 2).collect::<Vec<_>>()
            );
        }
        assert!(each(3, Vec::<u8>::new(), |n| n).is_empty());
    }

    #[test]
    fn all_threads_take_part() {
        let ran = AtomicUsize::new(0);
        together(3, || {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 4);
        assert_eq!(beside(|| 1, || 2).unwrap(), (1, 2));
    }
}
