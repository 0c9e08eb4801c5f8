//! Links between pages, as they must be once the pages are installed: other files lie elsewhere, and some nowhere.

/// The page with each relative link leading to where its target is installed; a link to what is not is plain text.
/// `from` and `to` are the page's own paths in the checkout and below the root, `place` gives the latter for the former.
pub(crate) fn installed(page: &str, from: &str, to: &str, place: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), page);
    while let Some((before, (link, after))) = rest.split_once("](").and_then(|(b, a)| Some((b, a.split_once(')')?))) {
        out += before;
        rest = after;
        let (target, more) = link.split_at(link.find(['#', ' ']).unwrap_or(link.len()));
        if target.is_empty() || target.contains(':') {
            out.extend(["](", link, ")"]);
        } else if let Some(place) = place(&resolved(from, target)) {
            out.extend(["](", &relative(to, &place), more, ")"]);
        } else if let Some(text) = out.rfind('[') {
            out.remove(text);
        }
    }
    out + rest
}

/// The path that a page means by a relative link.
fn resolved(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The link by which a page means a path.
fn relative(page: &str, path: &str) -> String {
    let folders = page.matches('/').count();
    let shared = page.split('/').take(folders).zip(path.split('/')).take_while(|(one, other)| one == other).count();
    let below: Vec<&str> = path.split('/').skip(shared).collect();
    "../".repeat(folders - shared) + &below.join("/")
}

#[cfg(test)]
mod tests {
    use super::installed;

    #[test]
    fn links_lead_to_where_files_are_installed_and_those_to_nothing_are_plain_text() {
        let place = |path: &str| match path {
            "docs/kafka.md" => Some("usr/doc/kafka.md".to_owned()),
            "units/x.d" => Some("usr/x.d".to_owned()),
            _ => None,
        };
        let page = "[a](../kafka.md#b), [c](../../units/x.d \"d\"), [e](../gone.md), [f](#g), [h](https://i/j) (k)";
        let text = installed(page, "docs/o/p.md", "usr/doc/o/p.md", place);
        assert_eq!(text, "[a](../kafka.md#b), [c](../../x.d \"d\"), e, [f](#g), [h](https://i/j) (k)");
    }
}
