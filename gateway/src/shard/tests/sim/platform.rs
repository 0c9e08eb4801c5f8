//! The platform of a simulation: it answers as the question says, which the client has from the same dice.

use super::dice::Dice;
use crate::control::decide::{About, Allowed, HookAnswer, Question};
use crate::identity::Date;

/// The room that it lets nobody into.
pub(super) const BARRED: &str = "c";

/// The token of a login that is let in until then, or not at all.
pub(super) fn login(dice: &mut Dice, ends_s: u64) -> String {
    match dice.below(12) {
        0 | 1 => "refuse".into(),
        2 => dice.pick(&["down", "nonsense"]).into(),
        _ => ends_s.to_string(),
    }
}

/// Whether the login with this token is let in.
pub(super) fn lets_in(token: &str) -> bool {
    token.parse::<u64>().is_ok()
}

/// What it says.
pub(super) fn answer(question: &Question) -> HookAnswer {
    let login = match &question.about {
        About::Join { room, .. } if room == BARRED => return HookAnswer::Refused,
        About::Join { .. } => return HookAnswer::Allowed(Box::default()),
        About::Login(login) => login,
    };
    match login.token.as_str() {
        "refuse" => HookAnswer::Refused,
        "down" => HookAnswer::Down,
        "nonsense" => HookAnswer::Nonsense,
        ends_s => {
            let rooms = ["a*", "room-*", "many-*", "new-*"].map(str::to_owned);
            HookAnswer::Allowed(Box::new(Allowed {
                rooms: Some(rooms.into()),
                operations: Some(vec![1000, 1001]),
                exp: Some(Date(ends_s.parse().expect("when it ends"))),
                ..Allowed::default()
            }))
        }
    }
}
