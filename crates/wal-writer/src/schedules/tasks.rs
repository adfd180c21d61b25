//! The smallest executor: a thread that polls one future and sleeps in between.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test that called it")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{Condvar, Mutex};

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm { is_rung: Mutex::new(false), changed: Condvar::new() });
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let mut is_rung = alarm.is_rung.lock().unwrap();
        while !std::mem::take(&mut *is_rung) {
            is_rung = alarm.changed.wait(is_rung).unwrap();
        }
    }
}

struct Alarm {
    is_rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.is_rung.lock().unwrap() = true;
        self.changed.notify_one();
    }
}
