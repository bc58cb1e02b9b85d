//! The words that `#[cluster::main]` accepts; every refusal says what would have been right.

use std::ops::RangeInclusive;

use proc_macro2::{Literal, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, ExprPath, Ident, Lit, LitInt, LitStr, Path, Result, Token, Type, token};

const OPTIONS: &str = "accepted are `workers = N`, `workers = \"auto\"`, `workers(A, B<K>, ..)`, `threads = N`, \
     `name = \"..\"`, `init = path::to::function` and `crate = path::to::rclust`";
const WORKERS: &str = "`workers = ..` takes a whole number from 1 to 4096, or \"auto\"; \
     `workers(A, B<K>, ..)` lists worker types";
const ROLES: &str = "`workers(..)` takes worker types separated by commas, at least one: \
     `workers(A, B<K>, lib::C)`; a number of processes is written `workers = N`";
const THREADS: &str = "`threads = ..` takes a whole number from 1 to 1024";
const NAME: &str = "`name = ..` takes a string of 1 to 64 characters without `/`, `[`, `]` and control characters";
const INIT: &str = "`init = ..` takes the path of a function: `init = setup` or `init = module::setup`";
const CRATE: &str = "`crate = ..` takes the path at which rclust is found: `crate = my_library::rclust`";

/// The arguments, each correct by itself. Whether they suit the function is checked in `main_expand`.
#[derive(Default)]
pub(crate) struct MainArgs {
    pub(crate) workers: Option<Workers>,
    pub(crate) threads: Option<Literal>,
    pub(crate) name: Option<LitStr>,
    pub(crate) init: Option<ExprPath>,
    pub(crate) krate: Option<Path>,
}

/// The option `workers` and the word itself, for errors that are about it.
pub(crate) struct Workers {
    pub(crate) word: Ident,
    pub(crate) wanted: Wanted,
}

pub(crate) enum Wanted {
    /// `workers = N`
    Count(Literal),
    /// `workers = "auto"`
    Auto,
    /// `workers(A, B<K>)`
    Roles(Vec<Type>),
}

impl Parse for MainArgs {
    fn parse(input: ParseStream) -> Result<Self> {
        let mut args = MainArgs::default();
        let mut report = Report::default();
        while !input.is_empty() {
            if let Err(error) = args.parse_option(input) {
                report.add(error);
                while !ends_here(input) {
                    input.parse::<TokenTree>()?;
                }
            }
            input.parse::<Option<Token![,]>>()?;
        }
        report.finish().map(|()| args)
    }
}

impl MainArgs {
    /// Reads one option up to the comma behind it.
    fn parse_option(&mut self, input: ParseStream) -> Result<()> {
        let word = Ident::parse_any(input)
            .map_err(|error| Error::new(error.span(), format!("expected an option; {OPTIONS}")))?;
        match word.to_string().as_str() {
            "workers" => {
                let wanted = if input.peek(token::Paren) { roles(input)? } else { count(&word, input)? };
                self.set_workers(Workers { word, wanted })
            }
            "threads" => {
                let number = value(&word, input, THREADS, Parse::parse)?;
                let number = whole_number(&number, 1..=1024, THREADS)?;
                set(&mut self.threads, &word, number)
            }
            "name" => {
                let name = value(&word, input, NAME, Parse::parse)?;
                set(&mut self.name, &word, checked_name(name)?)
            }
            "init" => {
                let path = value(&word, input, INIT, Parse::parse)?;
                set(&mut self.init, &word, path)
            }
            "crate" => {
                let path = value(&word, input, CRATE, Path::parse_mod_style)?;
                set(&mut self.krate, &word, path)
            }
            unknown => Err(Error::new(word.span(), format!("unknown option `{unknown}`; {OPTIONS}"))),
        }
    }

    fn set_workers(&mut self, new: Workers) -> Result<()> {
        if let Some(earlier) = &self.workers {
            if earlier.is_roles() != new.is_roles() {
                return Err(Error::new(
                    new.word.span(),
                    "`workers = ..` and `workers(..)` exclude each other: \
                     `workers = N` is for `async fn main(cx: cluster::Context)`, whose body runs in N worker processes; \
                     `workers(A, B)` is for `async fn main()`, whose body builds a tree of these worker types",
                ));
            }
        }
        let word = new.word.clone();
        set(&mut self.workers, &word, new)
    }
}

impl Workers {
    fn is_roles(&self) -> bool {
        matches!(self.wanted, Wanted::Roles(_))
    }
}

/// Stores the value of an option that must not have one yet.
fn set<T>(option: &mut Option<T>, word: &Ident, value: T) -> Result<()> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(word.span(), format!("`{word}` is given twice; each option is accepted once"))),
    }
}

/// Reads `= value` with nothing behind it; anything else is answered with `expected`.
fn value<T>(
    word: &Ident,
    input: ParseStream,
    expected: &str,
    parse: impl FnOnce(ParseStream) -> Result<T>,
) -> Result<T> {
    let equals = input.parse::<Option<Token![=]>>()?;
    if equals.is_none() || ends_here(input) {
        return Err(Error::new(word.span(), expected));
    }
    let start = input.span();
    let value = parse(input).map_err(|_| Error::new(start, expected))?;
    comma(input, expected)?;
    Ok(value)
}

/// Checks that the option ends here, and leaves the comma where it is.
fn comma(input: ParseStream, expected: &str) -> Result<()> {
    if ends_here(input) { Ok(()) } else { Err(input.error(format!("expected `,`; {expected}"))) }
}

fn ends_here(input: ParseStream) -> bool {
    input.is_empty() || input.peek(Token![,])
}

/// Reads `= N` or `= "auto"`.
fn count(word: &Ident, input: ParseStream) -> Result<Wanted> {
    match value(word, input, WORKERS, Parse::parse)? {
        Lit::Int(number) => whole_number(&number, 1..=4096, WORKERS).map(Wanted::Count),
        Lit::Str(text) if text.value() == "auto" => Ok(Wanted::Auto),
        other => Err(Error::new(other.span(), WORKERS)),
    }
}

/// Reads `(A, B<K>, lib::C)`.
fn roles(input: ParseStream) -> Result<Wanted> {
    let list;
    let parentheses = syn::parenthesized!(list in input);
    let roles = Punctuated::<Type, Token![,]>::parse_terminated(&list).map_err(|e| Error::new(e.span(), ROLES))?;
    if roles.is_empty() {
        return Err(Error::new(parentheses.span.join(), ROLES));
    }
    comma(input, ROLES)?;
    let mut seen = Vec::new();
    for role in &roles {
        let text = role.to_token_stream().to_string();
        if seen.contains(&text) {
            let twice = "this role is listed twice; each is listed once";
            return Err(Error::new_spanned(role, twice));
        }
        seen.push(text);
    }
    Ok(Wanted::Roles(roles.into_iter().collect()))
}

/// Checks the range and drops the way the number was written; the location stays.
fn whole_number(number: &LitInt, range: RangeInclusive<usize>, expected: &str) -> Result<Literal> {
    match number.base10_parse::<usize>() {
        Ok(value) if range.contains(&value) && number.suffix().is_empty() => {
            let mut literal = Literal::usize_unsuffixed(value);
            literal.set_span(number.span());
            Ok(literal)
        }
        _ => Err(Error::new(number.span(), expected)),
    }
}

fn checked_name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    let length_fits = (1..=64).contains(&text.chars().count());
    let reserved = |c: char| matches!(c, '/' | '[' | ']') || c.is_control();
    if length_fits && name.suffix().is_empty() && !text.contains(reserved) {
        Ok(name)
    } else {
        Err(Error::new(name.span(), NAME))
    }
}

/// Several mistakes in one report.
#[derive(Default)]
pub(crate) struct Report(Option<Error>);

impl Report {
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(earlier) => earlier.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MainArgs> {
        syn::parse_str(text)
    }

    fn mistakes(text: &str) -> Vec<String> {
        let error = parse(text).err().unwrap_or_else(|| panic!("`{text}` was accepted"));
        error.into_iter().map(|one| one.to_string()).collect()
    }

    #[test]
    fn no_arguments_set_nothing() {
        let args = parse("").unwrap();
        assert!(args.workers.is_none() && args.threads.is_none() && args.name.is_none());
        assert!(args.init.is_none() && args.krate.is_none());
    }

    #[test]
    fn every_option_is_read_in_any_order_with_a_trailing_comma() {
        let text = r#"crate = ::a::b, init = <A<B, C>>::setup, name = "x", threads = 1_0, workers = 0x10,"#;
        let args = parse(text).unwrap();
        assert_eq!(args.krate.unwrap().segments.len(), 2);
        assert!(args.init.unwrap().qself.is_some());
        assert_eq!(args.name.unwrap().value(), "x");
        assert_eq!(args.threads.unwrap().to_string(), "10");
        let Wanted::Count(count) = args.workers.unwrap().wanted else { panic!("not a count") };
        assert_eq!(count.to_string(), "16");
    }

    #[test]
    fn roles_are_types_of_any_kind() {
        let args = parse("workers(A, B<K, V>, lib::C,)").unwrap();
        let Wanted::Roles(roles) = args.workers.unwrap().wanted else { panic!("not roles") };
        assert_eq!(roles.len(), 3);
    }

    #[test]
    fn limits_of_numbers_are_inclusive() {
        for good in ["workers = 1", "workers = 4096", "threads = 1", "threads = 1024"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in r#"0 4097 -1 4.0 4k 4usize 99999999999999999999 "many" auto"#.split(' ') {
            assert_eq!(mistakes(&format!("workers = {bad}")), [WORKERS], "{bad}");
        }
        for bad in ["0", "1025", "\"auto\"", "N"] {
            assert_eq!(mistakes(&format!("threads = {bad}")), [THREADS], "{bad}");
        }
    }

    #[test]
    fn names_are_short_and_cannot_be_taken_for_paths() {
        let long = "\u{e4}".repeat(64);
        assert!(parse(&format!("name = \"{long}\"")).is_ok());
        for bad in ["", "a/b", "a[1", "a]", "a\\n", &format!("{long}x")] {
            assert_eq!(mistakes(&format!("name = \"{bad}\"")), [NAME], "{bad}");
        }
    }

    #[test]
    fn a_missing_value_says_what_the_value_is() {
        for (text, expected) in [
            ("workers", WORKERS),
            ("threads =", THREADS),
            ("threads(2)", THREADS),
            ("name", NAME),
            ("init = ", INIT),
            ("init = \"setup\"", INIT),
            ("crate = \"rclust\"", CRATE),
            ("workers()", ROLES),
            ("workers(4)", ROLES),
            ("workers(A B)", ROLES),
        ] {
            assert_eq!(mistakes(text), [expected], "{text}");
        }
    }

    #[test]
    fn what_stands_behind_a_value_must_be_a_comma() {
        for (text, expected) in [
            ("workers = 2 + 2", WORKERS),
            ("threads = 2 name = \"x\"", THREADS),
            ("init = setup()", INIT),
            ("workers(A) workers(B)", ROLES),
        ] {
            assert_eq!(mistakes(text), [format!("expected `,`; {expected}")]);
        }
    }

    #[test]
    fn a_role_is_listed_once() {
        assert!(parse("workers(A<u8>, A<u16>)").is_ok());
        assert_eq!(mistakes("workers(A, lib::B, lib::B)").len(), 1);
    }

    #[test]
    fn independent_mistakes_are_reported_together() {
        let found = mistakes("thread = 2, workers = 0, name = \"\", threads = 2, threads = 3, 7");
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].starts_with("unknown option `thread`; accepted are"));
        assert!(found[3].starts_with("`threads` is given twice"));
        assert!(found[4].starts_with("expected an option"));
    }

    #[test]
    fn both_forms_of_workers_are_explained() {
        for text in ["workers = 2, workers(A)", "workers(A), workers = \"auto\""] {
            let found = mistakes(text);
            assert_eq!(found.len(), 1);
            assert!(found[0].contains("exclude each other"), "{found:?}");
        }
        assert!(mistakes("workers(A), workers(B)")[0].contains("given twice"));
    }
}
