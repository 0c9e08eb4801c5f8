//! Operation lists as Go's `strings.Split` and `strconv.ParseInt` read them.

use halley_protocol::operation::parse_operations;

fn parse(list: &str) -> Option<Vec<i32>> {
    let mut operations = Vec::new();
    let sound = parse_operations(list.as_bytes(), |operation| operations.push(operation));
    assert!(sound || operations.is_empty(), "a void list gives no operation");
    sound.then_some(operations)
}

#[test]
fn a_list_is_read_in_order() {
    assert_eq!(parse("1000,1001,1000"), Some(vec![1000, 1001, 1000]));
    assert_eq!(parse("7"), Some(vec![7]));
}

#[test]
fn an_empty_list_changes_nothing() {
    assert_eq!(parse(""), Some(vec![]));
}

#[test]
fn signs_and_leading_zeros_are_numbers() {
    assert_eq!(parse("+5,-5,-0,007"), Some(vec![5, -5, 0, 7]));
}

#[test]
fn the_whole_range_of_int32_is_taken_and_no_more() {
    assert_eq!(parse("2147483647,-2147483648"), Some(vec![i32::MAX, i32::MIN]));
    assert_eq!(parse("2147483648"), None);
    assert_eq!(parse("-2147483649"), None);
}

#[test]
fn one_bad_number_voids_the_list() {
    for bad in [
        "1000, 1001",
        " 1000",
        "1000 ",
        "1000,",
        ",1000",
        "1000,,1001",
        ",",
        "+",
        "-",
        "+-5",
        "0x10",
        "1_000",
        "1.0",
        "1e3",
        "１",
        "1000\n",
        "1000,a",
    ] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
    assert!(!parse_operations(b"1000,\xff", |_| panic!("a void list")));
}

#[test]
fn the_longest_body_is_a_list() {
    let list = vec!["1"; 2048].join(",");
    assert_eq!(parse(&list).map(|operations| operations.len()), Some(2048));
}
