//! Places for calls under way, given to those who wait in the order they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures_channel::oneshot;

/// So many places.
pub(super) struct Places {
    max: usize,
    free: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Place>>>,
}

/// One of them, until it is dropped.
pub(super) struct Place(Rc<Places>);

impl Places {
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { max, free: Cell::new(max), waiting: RefCell::default() })
    }

    /// Places that are taken, and who waits for one.
    pub(super) fn load(&self) -> (usize, usize) {
        let waiting = self.waiting.borrow().iter().filter(|waiter| !waiter.is_canceled()).count();
        (self.max - self.free.get(), waiting)
    }

    /// Waits for a place.
    pub(super) async fn take(self: &Rc<Self>) -> Place {
        if let Some(free) = self.free.get().checked_sub(1) {
            self.free.set(free);
            return Place(Rc::clone(self));
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        receiver.await.expect("whoever has a place hands it on")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        loop {
            let next = self.0.waiting.borrow_mut().pop_front();
            let Some(waiter) = next else { return self.0.free.set(self.0.free.get() + 1) };
            if waiter.is_canceled() {
                continue; // it gave up
            }
            // Should it give up before it is polled, the place is dropped with the message, and so handed on.
            drop(waiter.send(Self(Rc::clone(&self.0))));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn places_are_handed_on_in_order_and_none_is_lost_with_whoever_gives_up() {
        let mut cx = Context::from_waker(Waker::noop());
        let places = Places::new(1);
        let mut first = pin!(places.take());
        let Poll::Ready(place) = first.as_mut().poll(&mut cx) else { panic!("one is free") };
        let mut gives_up = Box::pin(places.take());
        let mut unpolled = Box::pin(places.take());
        let mut last = pin!(places.take());
        for waits in [gives_up.as_mut(), unpolled.as_mut()] {
            assert!(waits.poll(&mut cx).is_pending());
        }
        assert!(last.as_mut().poll(&mut cx).is_pending());
        assert_eq!(places.load(), (1, 3));
        drop(gives_up);
        drop(place);
        assert_eq!(places.load(), (1, 1), "the second has it, and does not know yet");
        drop(unpolled);
        let Poll::Ready(place) = last.as_mut().poll(&mut cx) else { panic!("handed on") };
        drop(place);
        assert_eq!(places.load(), (0, 0));
    }
}
