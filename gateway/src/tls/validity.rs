//! From when until when a certificate is valid: RFC 5280, 4.1, as far as the two times.

/// One element of DER: its tag and what it holds; and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// The two times of a certificate, in seconds since 1970; `None` if it has none that can be read.
pub(super) fn of(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // The version may be left out; then serial number, algorithm and issuer.
    if element(rest)?.0 == 0xa0 {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, from, rest) = element(validity)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, time(tag, until)?))
}

/// `YYMMDDHHMMSSZ` (tag 23), or the same with four digits of the year (tag 24).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.iter().try_fold(0u64, |sum, digit| Some(sum * 10 + u64::from((*digit as char).to_digit(10)?)))
    };
    let (year, at) = match tag {
        23 => (digits(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        24 => (digits(0..4)?, 4),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|more| digits(at + more..at + more + 2));
    let days = days_since_1970(year, month?, day?)?;
    Some(days * 86_400 + hour? * 3600 + minute? * 60 + second?)
}

/// Days of the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    days.checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(time(23, b"700101000000Z"), Some(0));
        assert_eq!(time(23, b"000301000000Z"), Some(951_868_800));
        assert_eq!(time(24, b"20240229235959Z"), Some(1_709_251_199));
        assert_eq!(time(24, b"20491231000000Z"), Some(2_524_521_600));
        assert_eq!(time(23, b"701301000000Z"), None);
        assert_eq!(time(23, b"7x0101000000Z"), None);
    }

    #[test]
    fn a_certificate_says_how_long_it_is_valid() {
        let mut params = rcgen::CertificateParams::new(["a".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2055, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        assert_eq!(of(certificate.der()), Some((1_709_164_800, 2_682_374_400)));
        assert!((0..certificate.der().len()).all(|cut| of(&certificate.der()[..cut]).is_none_or(|(from, _)| from > 0)));
    }
}
