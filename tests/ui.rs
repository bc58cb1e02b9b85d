//! Misuse of the macro and of the types: each is a compile error that says what to do; and what must compile does.

#[test]
fn mistakes_are_compile_errors_that_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    if cfg!(feature = "threads") {
        // The others are the same without it, and are compiled then.
        return cases.pass("ui/threads_on.rs");
    }
    cases.compile_fail("ui/macro_*.rs");
    cases.compile_fail("ui/api_*.rs");
    cases.pass("ui/pass_*.rs");
    cases.compile_fail("ui/threads_off.rs");
}
