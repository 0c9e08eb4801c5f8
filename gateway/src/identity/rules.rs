//! What a grant allows: rooms by pattern, operations by list, a rate.

use super::Claims;

/// The rooms and operations of a grant. Connections of equal rules share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    rooms: Box<[Box<str>]>,
    /// `None`: all.
    operations: Option<Box<[i32]>>,
    /// 0: none.
    rate: u32,
}

impl Rules {
    /// The rules of a token.
    pub fn new(claims: &Claims) -> Self {
        let rooms = claims.rooms.iter().map(|room| room.as_str().into()).collect();
        Self { rooms, operations: claims.operations.as_deref().map(Into::into), rate: claims.rate.unwrap_or(0) }
    }

    /// Packets that the client may say in a second; 0: those of the configuration.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether this room may be joined.
    pub fn allow_room(&self, name: &str) -> bool {
        self.rooms.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether this operation may be accepted.
    pub fn allow_operation(&self, operation: i32) -> bool {
        self.operations.as_ref().is_none_or(|allowed| allowed.contains(&operation))
    }

    /// Whether they say of every operation that it may be accepted.
    pub fn allow_all_operations(&self) -> bool {
        self.operations.is_none()
    }
}

/// The first `*` of a pattern stands for any characters, none included; the rest is taken literally.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    name.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_the_rest_for_itself() {
        for (pattern, good, bad) in [
            ("live://1", &["live://1"][..], &["live://10", "live://", ""][..]),
            ("live://*", &["live://", "live://1", "live://*"], &["live:/", "xlive://1"]),
            ("*", &["", "anything"], &[]),
            ("user/*/inbox", &["user/7/inbox", "user/7/8/inbox"], &["user/inbox", "user/7/inbox2", "user/"]),
            ("aba*aba", &["abaaba", "ababaaba"], &["aba", "ababa"]),
            ("a*b*", &["axb*"], &["axbx"]),
            ("", &[""], &["a"]),
        ] {
            assert!(good.iter().all(|name| matches(pattern, name)), "{pattern}");
            assert!(!bad.iter().any(|name| matches(pattern, name)), "{pattern}");
        }
    }

    #[test]
    fn without_rooms_none_may_be_joined_and_without_operations_all_accepted() {
        let rules = Rules::new(&Claims::default());
        assert!(!rules.allow_room("a") && rules.allow_operation(7) && rules.allow_all_operations());
        let claims = Claims { rooms: vec!["a*".into(), "b".into()], operations: Some(vec![1000]), ..Claims::default() };
        let rules = Rules::new(&claims);
        assert!(["a", "ab", "b"].iter().all(|room| rules.allow_room(room)) && !rules.allow_room("bb"));
        assert!(rules.allow_operation(1000) && !rules.allow_operation(1001));
    }
}
