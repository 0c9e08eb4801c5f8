//! Telling stories: a script of events, what becomes of it, and how a failing one is cut down to a short one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::story::{Ending, Story};

/// Events of a standard seed.
pub(super) const EVENTS: u64 = 2500;

/// Events told of before a failure.
const LAST_EVENTS: usize = 12;

/// Stories told in search of a shorter one.
const ATTEMPTS_MAX: usize = 1500;

/// Which events happen.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// The first so many.
    Events(u64),
    /// As many as it takes for so many milliseconds of the story's clock to pass, quiet spells among them.
    Until(u64),
    /// These.
    Only(Vec<u64>),
    /// These, of a story with quiet spells.
    OnlyLong(Vec<u64>),
}

impl Script {
    /// Nothing is left out, not what comes before the first event either: the story of echo connections.
    fn is_whole(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Until(_))
    }

    pub(super) fn is_long(&self) -> bool {
        matches!(self, Self::Until(_) | Self::OnlyLong(_))
    }
}

/// A story that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) seed: u64,
    /// With quiet spells.
    pub(super) long: bool,
    /// Every event up to the one at which it failed.
    pub(super) script: Vec<u64>,
    /// What failed, and where.
    pub(super) message: String,
    place: String,
    /// The last events in plain words.
    pub(super) words: Vec<String>,
    /// Of what came before it failed.
    pub(super) trace: u64,
}

#[derive(Default)]
struct Progress {
    told: bool,
    script: Vec<u64>,
    words: VecDeque<String>,
    trace: u64,
    message: String,
    place: String,
}

thread_local! {
    static PROGRESS: RefCell<Progress> = RefCell::default();
}

/// Tells the story of a seed.
pub(super) fn tell(seed: u64, script: &Script) -> Result<Ending, Failure> {
    catch_messages();
    PROGRESS.set(Progress { told: true, ..Progress::default() });
    let ending = panic::catch_unwind(AssertUnwindSafe(|| {
        let echoes = if script.is_whole() { super::echo::play(seed) } else { 0 };
        let mut story = Story::new(seed, script.is_long());
        let mut only = match script {
            Script::Only(numbers) | Script::OnlyLong(numbers) => numbers.clone().into_iter(),
            _ => Vec::new().into_iter(),
        };
        for number in 0.. {
            let number = match script {
                Script::Events(events) if number >= *events => break,
                Script::Until(ms) if story.world.now_ms >= *ms => break,
                Script::Events(_) | Script::Until(_) => number,
                Script::Only(_) | Script::OnlyLong(_) => match only.next() {
                    Some(number) => number,
                    None => break,
                },
            };
            PROGRESS.with_borrow_mut(|progress| progress.script.push(number));
            let words = story.play(number);
            PROGRESS.with_borrow_mut(|progress| {
                progress.note(format!("{number:>6} {words}"));
                progress.trace = story.trace();
            });
        }
        let mut ending = story.finish();
        ending.trace ^= echoes;
        if script.is_whole() {
            let (trace, reached) = super::upstream::play(seed);
            ending.trace ^= trace;
            ending.reached.extend(reached);
        }
        ending
    }));
    let Progress { script: told, words, trace, message, place, .. } = PROGRESS.take();
    let long = script.is_long();
    ending.map_err(|_| Failure { seed, long, script: told, message, place, words: words.into(), trace })
}

impl Progress {
    fn note(&mut self, words: String) {
        if self.words.len() == LAST_EVENTS {
            self.words.pop_front();
        }
        self.words.push_back(words);
    }
}

/// A failing story's message is kept for its report, not printed on the way.
fn catch_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let kept = PROGRESS.with_borrow_mut(|progress| {
                progress.message = info.to_string();
                progress.place = info.location().map(ToString::to_string).unwrap_or_default();
                progress.told
            });
            if !kept {
                before(info);
            }
        }));
    });
}

/// Leaves events out as long as the story fails at the same place.
pub(super) fn shrink(failure: Failure) -> Failure {
    let mut least = failure;
    let mut attempts = 0;
    let mut chunk = least.script.len() / 2;
    while chunk > 0 && attempts < ATTEMPTS_MAX {
        let mut at = 0;
        let mut shorter = false;
        while at < least.script.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let mut script = least.script.clone();
            script.drain(at..script.len().min(at + chunk));
            let script = if least.long { Script::OnlyLong(script) } else { Script::Only(script) };
            match tell(least.seed, &script) {
                Err(failure) if failure.place == least.place => (least, shorter) = (failure, true),
                _ => at += chunk,
            }
        }
        if !shorter || chunk > least.script.len() {
            chunk /= 2;
        }
    }
    least
}
