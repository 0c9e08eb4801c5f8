//! The auth JSON, with the habits of Go's decoder that goim clients may rely on.

use halley_protocol::login::{Login, LoginReject};
use proptest::prelude::*;

fn parse(json: &str) -> Result<Login, LoginReject> {
    Login::parse(json.as_bytes())
}

#[track_caller]
fn login(json: &str) -> Login {
    parse(json).expect("a login")
}

#[test]
fn every_field_may_be_missing() {
    assert_eq!(parse("{}"), Ok(Login::default()));
    assert_eq!(parse(" \t\r\n{ } "), Ok(Login::default()));
}

#[test]
fn every_field_is_read() {
    let json = r#"{"mid":-9223372036854775808,"key":"k","room_id":"live://1","platform":"ios",
        "accepts":[-1,2147483647],"halley":1,"token":"t"}"#;
    let expected = Login {
        mid: i64::MIN,
        key: "k".into(),
        room_id: "live://1".into(),
        platform: "ios".into(),
        accepts: vec![-1, i32::MAX],
        halley: true,
        token: "t".into(),
    };
    assert_eq!(parse(json), Ok(expected));
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    let json = r#"{"x":{"mid":[1,{"key":null}]},"y":1e999,"z":"\ud83d\ude00","mid":7}"#;
    assert_eq!(login(json).mid, 7);
}

#[test]
fn names_match_whatever_their_case() {
    let login = login(r#"{"MID":1,"Key":"k","Room_ID":"r","\u0061ccept\u017f":[5]}"#);
    assert_eq!((login.mid, &*login.key, &*login.room_id, &*login.accepts), (1, "k", "r", &[5][..]));
    assert_eq!(self::login(r#"{"\u212aey":"kelvin"}"#).key, "kelvin");
    assert_eq!(self::login(r#"{"roomid":"r","room-id":"r"}"#), Login::default());
}

#[test]
fn of_equal_names_the_last_wins() {
    assert_eq!(login(r#"{"mid":1,"MID":2}"#).mid, 2);
    assert_eq!(login(r#"{"MID":2,"mid":1}"#).mid, 1);
    assert_eq!(login(r#"{"accepts":[1,2],"accepts":[3]}"#).accepts, [3]);
}

#[test]
fn null_is_as_good_as_absent() {
    let json = r#"{"mid":null,"key":null,"room_id":null,"platform":null,"accepts":null,"halley":null}"#;
    assert_eq!(parse(json), Ok(Login::default()));
    assert_eq!(parse("null"), Ok(Login::default()));
    let login = login(r#"{"mid":1,"mid":null,"accepts":[1],"accepts":null}"#);
    assert_eq!((login.mid, login.accepts.len()), (1, 0));
    assert_eq!(self::login(r#"{"accepts":[null,4]}"#).accepts, [0, 4]);
}

#[test]
fn a_wrong_type_is_refused() {
    for json in [
        r#"{"mid":"123"}"#,
        r#"{"mid":1.0}"#,
        r#"{"mid":1e3}"#,
        r#"{"mid":true}"#,
        r#"{"mid":[]}"#,
        r#"{"mid":9223372036854775808}"#,
        r#"{"key":1}"#,
        r#"{"key":["k"]}"#,
        r#"{"room_id":1000}"#,
        r#"{"platform":{}}"#,
        r#"{"accepts":"1000"}"#,
        r#"{"accepts":1000}"#,
        r#"{"accepts":{"0":1}}"#,
        r#"{"accepts":["1000"]}"#,
        r#"{"accepts":[2147483648]}"#,
        r#"{"accepts":[1.5]}"#,
        "[]",
        "1",
        "true",
        r#""{}""#,
        r#"{"mid":"1","mid":1}"#,
    ] {
        assert_eq!(parse(json), Err(LoginReject::WrongType), "{json}");
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for json in [
        "",
        " ",
        "{",
        "}",
        "{}x",
        "{}{}",
        "{'mid':1}",
        "{mid:1}",
        r#"{"mid":1,}"#,
        r#"{"mid":01}"#,
        r#"{"mid":+1}"#,
        r#"{"key":"a"#,
        "{\"key\":\"a\nb\"}",
        r#"{"key":"\x"}"#,
        "123abc",
        "\u{feff}{}",
        r#"{"accepts":[1,]}"#,
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
    assert_eq!(parse(""), Err(LoginReject::Syntax));
    assert_eq!(parse("{"), Err(LoginReject::Syntax));
}

#[test]
fn minus_zero_is_a_number() {
    assert_eq!(login(r#"{"mid":-0}"#).mid, 0);
}

#[test]
fn strings_are_unescaped() {
    let login = login(r#"{"key":"a\"\\\/\b\f\n\r\t\u00e4\ud834\udd1e"}"#);
    assert_eq!(login.key, "a\"\\/\u{8}\u{c}\n\r\tä𝄞");
}

#[test]
fn bytes_that_are_not_utf8_become_the_replacement_character_one_by_one() {
    let login = Login::parse(b"{\"key\":\"a\xff\xe2\x82z\"}").unwrap();
    assert_eq!(login.key, "a\u{fffd}\u{fffd}\u{fffd}z");
    assert_eq!(Login::parse(b"{\xff}"), Err(LoginReject::Syntax));
}

#[test]
fn half_a_surrogate_pair_is_refused() {
    assert!(parse(r#"{"key":"\ud800"}"#).is_err());
}

#[test]
fn only_the_number_one_marks_a_halley_client() {
    for (value, marked) in [("1", true), ("0", false), ("2", false), ("true", false), ("\"1\"", false)] {
        assert_eq!(login(&format!(r#"{{"halley":{value}}}"#)).halley, marked, "{value}");
    }
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = format!(r#"{{"x":{}{},"mid":3}}"#, "[".repeat(2000), "]".repeat(2000));
    assert_eq!(login(&deep).mid, 3);
    assert!(parse(&"[".repeat(4096)).is_err());
}

#[test]
fn fields_that_say_nothing_are_not_sent() {
    assert_eq!(Login::default().to_json(), "{}");
    let login = Login { mid: 5, accepts: vec![1], halley: true, ..Login::default() };
    assert_eq!(login.to_json(), r#"{"mid":5,"accepts":[1],"halley":1}"#);
}

proptest! {
    #[test]
    fn a_login_comes_out_as_it_went_in(
        mid in any::<i64>(), key in any::<String>(), room_id in any::<String>(), platform in any::<String>(),
        accepts in prop::collection::vec(any::<i32>(), 0..20), halley in any::<bool>(), token in any::<String>(),
    ) {
        let login = Login { mid, key, room_id, platform, accepts, halley, token };
        prop_assert_eq!(Login::parse(login.to_json().as_bytes()), Ok(login));
    }
}

#[test]
fn a_token_is_a_string_and_anything_else_is_none() {
    assert_eq!(login(r#"{"token":"a.b.c"}"#).token, "a.b.c");
    for json in [r#"{"token":7}"#, r#"{"token":null}"#, r#"{"token":{"a":1}}"#, "{}"] {
        assert_eq!(login(json).token, "", "goim ignores the field: {json}");
    }
}
