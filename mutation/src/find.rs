//! Finds the places of a source file that can be changed, and how each change is woven in beside what is there.
//!
//! Every change is a pair of insertions, or one, so that all of them live in one program and a number chooses among
//! them while it runs: a program is built once, not once for each change.

use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprLet, ImplItemFn, ItemFn, Pat, ReturnType, Signature, Stmt, Type, UnOp};

/// One change.
pub(crate) struct Mutant {
    pub(crate) number: usize,
    pub(crate) line: usize,
    pub(crate) function: String,
    pub(crate) what: String,
    /// Before what is changed, and behind it.
    inserts: Vec<Insert>,
}

impl Mutant {
    /// Whether it leaves out a statement behind which nothing would go on.
    pub(crate) fn leaves(&self) -> bool {
        ["`return", "`continue", "`break"].iter().any(|word| self.what.starts_with(word))
    }
}

struct Insert {
    at: usize,
    text: String,
    closes: bool,
}

/// Macros whose call is no behaviour.
const SAYS_ONLY: &[&str] = &[
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "debug",
    "info",
    "warn",
];

/// Every change of a source, numbered from `first`.
pub(crate) fn mutants(source: &str, first: usize) -> Result<Vec<Mutant>, syn::Error> {
    let file = syn::parse_file(source)?;
    let mut finder = Finder { source, first, function: String::new(), found: Vec::new() };
    finder.visit_file(&file);
    Ok(finder.found)
}

/// The source with these changes in it, and for each where it begins and ends.
pub(crate) fn weave<'a>(
    source: &str,
    mutants: impl Iterator<Item = &'a Mutant>,
) -> (String, Vec<(usize, Range<usize>)>) {
    let mut inserts: Vec<(usize, bool, isize, usize, &str)> = Vec::new();
    for mutant in mutants {
        let order = isize::try_from(mutant.number).unwrap_or(isize::MAX);
        // At one place what is closed comes first, the inner before the outer; then the outer is opened first.
        inserts.extend(mutant.inserts.iter().map(|insert| {
            let rank = if insert.closes { -order } else { order };
            (insert.at, !insert.closes, rank, mutant.number, &*insert.text)
        }));
    }
    inserts.sort_unstable();
    let (mut woven, mut done) = (String::with_capacity(source.len() * 2), 0);
    let mut regions: Vec<(usize, Range<usize>)> = Vec::new();
    for (at, _, _, number, text) in inserts {
        woven.push_str(&source[done..at]);
        done = at;
        let begins = woven.len();
        woven.push_str(text);
        match regions.iter_mut().find(|(known, _)| *known == number) {
            Some((_, region)) => region.end = woven.len(),
            None => regions.push((number, begins..woven.len())),
        }
    }
    woven.push_str(&source[done..]);
    (woven, regions)
}

struct Finder<'s> {
    source: &'s str,
    first: usize,
    function: String,
    found: Vec<Mutant>,
}

impl Finder<'_> {
    fn text(&self, of: &impl Spanned) -> &str {
        &self.source[of.span().byte_range()]
    }

    /// In one line, not too long.
    fn short(&self, of: &impl Spanned) -> String {
        let words: Vec<&str> = self.text(of).split_whitespace().collect();
        let mut text = words.join(" ");
        if let Some((end, _)) = text.char_indices().nth(90) {
            text.truncate(end);
            text.push('…');
        }
        text
    }

    /// Notes a change: `before` and `after` are told its number.
    fn add(&mut self, span: Span, what: String, range: Range<usize>, before: &str, after: &str) {
        let number = self.first + self.found.len();
        let choice = format!("crate::mutant({number})");
        let mut inserts = vec![Insert { at: range.start, text: before.replace("CHOSEN", &choice), closes: false }];
        if !after.is_empty() {
            inserts.push(Insert { at: range.end, text: after.to_owned(), closes: true });
        }
        self.found.push(Mutant { number, line: span.start().line, function: self.function.clone(), what, inserts });
    }

    /// Replaces an expression by this text where it is chosen.
    fn replace(&mut self, expr: &Expr, by: &str) {
        let what = format!("`{}` → `{}`", self.short(expr), by.split_whitespace().collect::<Vec<_>>().join(" "));
        self.add(expr.span(), what, expr.span().byte_range(), &format!("(if CHOSEN {{ {by} }} else {{ "), " })");
    }

    /// A condition that is met whatever it says, and one that is never met.
    fn condition(&mut self, expr: &Expr, answers: &[bool]) {
        if contains_let(expr) || self.text(expr).contains("planted(") {
            return;
        }
        for answer in answers {
            let before = if *answer { "CHOSEN || (" } else { "!CHOSEN && (" };
            let what = format!("`{}` is taken as {answer}", self.short(expr));
            self.add(expr.span(), what, expr.span().byte_range(), &format!("({before}"), "))");
        }
    }

    fn statement(&mut self, stmt: &Stmt, is_last: bool) {
        let removable = match stmt {
            Stmt::Expr(_, Some(_)) | Stmt::Expr(Expr::ForLoop(_) | Expr::While(_), None) => true,
            Stmt::Expr(Expr::If(one), None) => one.else_branch.is_none() || !is_last,
            Stmt::Expr(Expr::Match(_) | Expr::Block(_) | Expr::Loop(_), None) => !is_last,
            Stmt::Macro(call) => {
                let name = call.mac.path.segments.last().map(|segment| segment.ident.to_string());
                !name.is_some_and(|name| SAYS_ONLY.contains(&&*name))
            }
            Stmt::Expr(..) | Stmt::Local(_) | Stmt::Item(_) => false,
        };
        if removable {
            let what = format!("`{}` is left out", self.short(stmt));
            self.add(stmt.span(), what, stmt.span().byte_range(), "if !CHOSEN { ", " }");
        }
    }

    /// A block; the end of one that must not go on is left as it is.
    fn block(&mut self, block: &Block, must_leave: bool) {
        for (at, stmt) in block.stmts.iter().enumerate() {
            let is_last = at + 1 == block.stmts.len();
            if !(is_last && must_leave) {
                self.statement(stmt, is_last);
            }
            self.visit_stmt(stmt);
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        if signature.constness.is_some() || signature.ident == "fmt" {
            return;
        }
        self.function = signature.ident.to_string();
        let start = block.brace_token.span.open().byte_range().end;
        for answer in answers(&signature.output) {
            let what = if answer.is_empty() { "does nothing".to_owned() } else { format!("answers `{answer}`") };
            let before = format!(" if CHOSEN {{ return {answer}; }}");
            self.add(signature.ident.span(), what, start..start, &before, "");
        }
        self.block(block, false);
        self.function.clear();
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item::{Const, Enum, Fn, Impl, Macro, Mod, Static, Struct, Type, Use};
        match item {
            Fn(one) if !for_tests(&one.attrs) => visit::visit_item(self, item),
            Impl(one) if !for_tests(&one.attrs) => visit::visit_item(self, item),
            Mod(one) if !for_tests(&one.attrs) => visit::visit_item(self, item),
            Fn(_) | Impl(_) | Mod(_) | Const(_) | Enum(_) | Macro(_) | Static(_) | Struct(_) | Type(_) | Use(_) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_fn(&mut self, one: &'ast ItemFn) {
        self.function(&one.sig, &one.block);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if !matches!(item, syn::ImplItem::Const(_)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, one: &'ast ImplItemFn) {
        if !for_tests(&one.attrs) {
            self.function(&one.sig, &one.block);
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.block(block, false);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let Some(init) = &local.init else { return };
        self.visit_expr(&init.expr);
        match init.diverge.as_ref().map(|(_, diverge)| &**diverge) {
            Some(Expr::Block(otherwise)) => self.block(&otherwise.block, true),
            Some(other) => self.visit_expr(other),
            None => {}
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) if !contains_let(expr) => {
                let [left, right] = [self.text(&binary.left), self.text(&binary.right)].map(str::to_owned);
                if !(left.contains("planted(") || right.contains("planted(")) {
                    for other in others(&binary.op) {
                        self.replace(expr, &format!("{left} {other} {right}"));
                    }
                }
                if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) {
                    for side in [left, right].into_iter().filter(|side| !side.contains("planted(")) {
                        self.replace(expr, &side);
                    }
                }
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) => {
                let inner = self.text(&unary.expr).to_owned();
                if !inner.contains("planted(") {
                    self.replace(expr, &inner);
                }
            }
            Expr::MethodCall(call) if call.args.len() == 1 && (call.method == "min" || call.method == "max") => {
                let receiver = self.text(&call.receiver).to_owned();
                self.replace(expr, &receiver);
            }
            Expr::If(one) => self.condition(&one.cond, &[true, false]),
            Expr::Match(one) => self.arms(one),
            Expr::Closure(closure) if !matches!(*closure.body, Expr::Block(_) | Expr::Binary(_)) => {
                self.condition(&closure.body, &[true, false]);
            }
            Expr::Closure(closure) => self.condition(&closure.body, &[true]),
            Expr::Repeat(repeat) => return self.visit_expr(&repeat.expr),
            Expr::Const(_) => return,
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_pat(&mut self, _: &'ast Pat) {}

    fn visit_type(&mut self, _: &'ast Type) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
}

impl Finder<'_> {
    /// Guards that do not guard; where another arm takes everything, arms that take nothing.
    fn arms(&mut self, one: &syn::ExprMatch) {
        let binds = |name: &syn::Ident| name.to_string().starts_with(char::is_lowercase);
        let takes_all = |arm: &syn::Arm| {
            let any = match &arm.pat {
                Pat::Wild(_) => true,
                Pat::Ident(name) => name.subpat.is_none() && binds(&name.ident),
                _ => false,
            };
            any && arm.guard.is_none()
        };
        let rest = one.arms.iter().any(takes_all);
        for arm in &one.arms {
            if let Some((_, guard)) = &arm.guard {
                self.condition(guard, &[true, false]);
            } else if rest && !takes_all(arm) {
                let what = format!("the arm `{}` is left out", self.short(&arm.pat));
                let end = arm.pat.span().byte_range().end;
                self.add(arm.pat.span(), what, end..end, " if !CHOSEN", "");
            }
        }
    }
}

/// What a function of this type can answer without having looked.
fn answers(output: &ReturnType) -> Vec<&'static str> {
    let ReturnType::Type(_, kind) = output else { return vec![""] };
    let Type::Path(path) = &**kind else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match &*last.ident.to_string() {
        "bool" => vec!["true", "false"],
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => vec!["0", "1"],
        "Option" => vec!["None"],
        "Result" => vec!["Ok(Default::default())"],
        "Vec" | "String" => vec!["Default::default()"],
        _ => Vec::new(),
    }
}

/// What stands where this operator does.
fn others(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<="],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) | BinOp::Mul(_) => &["+"],
        BinOp::Div(_) => &["*"],
        BinOp::BitAnd(_) | BinOp::BitXor(_) => &["|"],
        BinOp::BitOr(_) => &["&"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        BinOp::BitOrAssign(_) => &["&="],
        BinOp::BitAndAssign(_) => &["|="],
        _ => &[],
    }
}

fn for_tests(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::NameValue(_) => false,
    };
    attributes.iter().any(is_test)
}

/// Whether it is a chain that binds names: it cannot stand in parentheses.
fn contains_let(expr: &Expr) -> bool {
    struct Lets(bool);
    impl<'ast> Visit<'ast> for Lets {
        fn visit_expr_let(&mut self, _: &'ast ExprLet) {
            self.0 = true;
        }
        fn visit_block(&mut self, _: &'ast Block) {}
        fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}
    }
    let mut lets = Lets(false);
    lets.visit_expr(expr);
    lets.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woven(source: &str, number: usize) -> String {
        let all = mutants(source, 0).expect("it parses");
        weave(source, all.iter().filter(|mutant| mutant.number == number)).0
    }

    #[test]
    fn a_statement_is_left_out_where_it_is_chosen() {
        let source = "fn f(x: &mut Vec<u8>) { x.clear(); let y = 1; x.push(y); }";
        let all = mutants(source, 0).expect("it parses");
        let what: Vec<_> = all.iter().map(|mutant| &*mutant.what).collect();
        assert_eq!(what, ["does nothing", "`x.clear();` is left out", "`x.push(y);` is left out"]);
        assert!(woven(source, 1).contains("{ if !crate::mutant(1) { x.clear(); } let y"), "{}", woven(source, 1));
    }

    #[test]
    fn changes_within_changes_close_in_the_order_they_open() {
        let source = "fn f(a: u8, b: u8) -> bool { if a == b { g(); } !(a < b && b < 3) }";
        let all = mutants(source, 0).expect("it parses");
        let (woven, regions) = weave(source, all.iter());
        assert!(syn::parse_file(&woven).is_ok(), "{woven}");
        assert_eq!(regions.len(), all.len());
        assert!(regions.iter().all(|(number, region)| woven[region.clone()].contains(&format!("mutant({number})"))));
    }

    #[test]
    fn tests_constants_and_chains_that_bind_stay_as_they_are() {
        let source = "const N: u8 = 1 + 2; #[cfg(test)] mod tests { fn f() { g(); } } const fn h() { g(); }
            fn k(x: Option<u8>) -> Q { if let Some(y) = x && y { z() } else { q() } }";
        let all = mutants(source, 0).expect("it parses");
        assert!(all.is_empty(), "{:?}", all.iter().map(|mutant| &mutant.what).collect::<Vec<_>>());
    }
}
