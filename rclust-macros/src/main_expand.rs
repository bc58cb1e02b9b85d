//! From the checked arguments and the function to tokens.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Result, ReturnType, Safety, Signature, Type, Visibility, token};

use crate::main_args::{MainArgs, Report, Wanted};

/// Expands `#[cluster::main(args)] item`.
///
/// An item that cannot be read, or is not called `main`, is returned as it is, so that editors and
/// callers keep working. After any other refusal an empty `main` stands in: one mistake, one error.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let main = match syn::parse2::<MainFn>(item.clone()) {
        Ok(main) => main,
        Err(error) => {
            let error = Error::new(error.span(), format!("`#[cluster::main]` goes on `async fn main`: {error}"));
            let error = error.into_compile_error();
            return quote!(#error #item);
        }
    };
    match boot_call(args, &main) {
        Ok(call) => {
            let MainFn { attributes, visibility, signature, body } = &main;
            quote! {
                #visibility fn main() -> ::std::process::ExitCode {
                    #(#attributes)*
                    #signature #body
                    #call
                }
            }
        }
        Err(error) => {
            let visibility = &main.visibility;
            let stand_in = if main.signature.ident == "main" { quote!(#visibility fn main() {}) } else { item };
            let error = error.into_compile_error();
            quote!(#error #stand_in)
        }
    }
}

/// The function under the attribute. Its body stays as written: it is the compiler's to judge.
struct MainFn {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: TokenTree,
}

impl Parse for MainFn {
    fn parse(input: ParseStream) -> Result<Self> {
        Ok(MainFn {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: if input.peek(token::Brace) {
                input.parse()?
            } else {
                return Err(input.error("expected a body in braces"));
            },
        })
    }
}

/// Whose body is it?
enum Form<'a> {
    /// The worker's; the parameter's type.
    Worker(&'a Type),
    /// The supervisor's; the roles that it may start.
    Tree(&'a [Type]),
}

/// Checks everything that can be checked without types, and makes the end of the new `main`.
fn boot_call(args: TokenStream, main: &MainFn) -> Result<TokenStream> {
    match (syn::parse2::<MainArgs>(args), check_function(main)) {
        (Ok(args), Ok(())) => {
            let form = form(&args, &main.signature)?;
            Ok(tokens(&args, form, &main.signature.output))
        }
        (Err(mut arguments), Err(function)) => {
            arguments.combine(function);
            Err(arguments)
        }
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
    }
}

fn check_function(main: &MainFn) -> Result<()> {
    let mut report = Report::default();
    check_attributes(&main.attributes, &mut report);
    check_signature(&main.signature, &mut report);
    report.finish()
}

fn check_attributes(attributes: &[Attribute], report: &mut Report) {
    for attribute in attributes {
        let segments = &attribute.path().segments;
        if segments.len() > 1 && segments.last().is_some_and(|last| last.ident == "main") {
            let path = attribute.path().to_token_stream().to_string().replace(' ', "");
            let what = "`#[cluster::main]` brings the runtime, and one of them is enough";
            report.add(Error::new_spanned(attribute, format!("remove `#[{path}]`: {what}")));
        }
    }
}

fn check_signature(signature: &Signature, report: &mut Report) {
    const PLAIN: &str = "accepted are `async fn main()` and `async fn main(cx: cluster::Context)`";
    let mut refuse =
        |tokens: &dyn ToTokens, what: &str| report.add(Error::new_spanned(tokens, format!("{what}; {PLAIN}")));

    if signature.ident != "main" {
        refuse(
            &signature.ident,
            "`#[cluster::main]` goes on the function `main`; \
             to start from another function, call `rclust::boot` there",
        );
    }
    if signature.asyncness.is_none() {
        refuse(
            &signature.fn_token,
            "`main` must be `async`; if `#[tokio::main]` stands above `#[cluster::main]`, \
             remove it, rclust brings the runtime",
        );
    }
    if let Some(constness) = &signature.constness {
        refuse(constness, "`main` cannot be `const`");
    }
    if !matches!(signature.safety, Safety::Default) {
        refuse(&signature.safety, "`main` cannot be `unsafe`");
    }
    if let Some(abi) = &signature.abi {
        refuse(abi, "`main` cannot be `extern`");
    }
    if !signature.generics.params.is_empty() {
        refuse(&signature.generics, "`main` cannot be generic");
    }
    if let Some(clause) = &signature.generics.where_clause {
        refuse(clause, "`main` cannot have a `where` clause");
    }
    for (index, parameter) in signature.inputs.iter().enumerate() {
        match parameter {
            FnArg::Receiver(receiver) => refuse(receiver, "`main` is no method and cannot take `self`"),
            FnArg::Typed(_) if index > 0 => refuse(parameter, "`main` takes at most one parameter"),
            FnArg::Typed(_) => {}
        }
    }
    if let Some(variadic) = &signature.variadic {
        refuse(variadic, "`main` takes at most one parameter");
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        if matches!(**ty, Type::Never(_)) {
            refuse(ty, "instead of `!` write `std::convert::Infallible`");
        }
    }
}

/// Brings parameter and `workers` together.
fn form<'a>(args: &'a MainArgs, signature: &'a Signature) -> Result<Form<'a>> {
    let parameter = signature.inputs.iter().find_map(|input| match input {
        FnArg::Typed(parameter) => Some(&*parameter.ty),
        FnArg::Receiver(_) => None,
    });
    let workers = args.workers.as_ref();
    let asked = workers.map(|workers| (&workers.word, &workers.wanted));
    match (parameter, asked) {
        (Some(parameter), None | Some((_, Wanted::Count(_) | Wanted::Auto))) => Ok(Form::Worker(parameter)),
        (None, Some((_, Wanted::Roles(roles)))) => Ok(Form::Tree(roles)),
        (Some(_), Some((word, Wanted::Roles(_)))) => Err(Error::new(
            word.span(),
            "`workers(..)` lists the roles of a tree that `main` builds in the supervisor: \
             remove the parameter; or keep it, and the body is the worker: \
             then only `workers = N` and `workers = \"auto\"` are accepted",
        )),
        (None, Some((word, Wanted::Count(_) | Wanted::Auto))) => Err(Error::new(
            word.span(),
            "`workers = ..` says how many processes run the body of `main`, which then needs the \
             parameter `cx: cluster::Context`; without it list the roles: `workers(A, B<K>, ..)`",
        )),
        (None, None) => Err(Error::new(
            signature.paren_token.span.join(),
            "give `main` the parameter `cx: cluster::Context` to make its body the worker; or, if the \
             body builds a tree in the supervisor, list the roles: \
             `#[cluster::main(workers(A, B<K>, ..))]`",
        )),
    }
}

fn tokens(args: &MainArgs, form: Form<'_>, output: &ReturnType) -> TokenStream {
    let krate = match &args.krate {
        Some(path) => path.to_token_stream(),
        None => quote!(::rclust),
    };
    let returns = match output {
        ReturnType::Default => quote!(#krate::__private::returns::<()>();),
        ReturnType::Type(_, ty) => quote_spanned!(ty.span()=> #krate::__private::returns::<#ty>();),
    };
    let settings = settings(args, &krate);
    let program = match form {
        Form::Worker(parameter) => {
            // A parameter of the wrong type is reported where it is written. The closure is there
            // because for a function the compiler would propose an edit that makes no sense.
            let body = quote_spanned!(parameter.span()=> |cx: #parameter| main(cx));
            at_return_type(quote!(#krate::body(#body)), args, output)
        }
        Form::Tree(roles) => {
            // A type that is no worker is reported at its entry.
            let roles = roles.iter().map(|role| quote_spanned!(role.span()=> #krate::Role::of::<#role>()));
            let tree = quote!(#krate::tree(::std::vec![#(#roles),*], main));
            at_return_type(tree, args, output)
        }
    };
    quote! {
        #returns
        #krate::boot(#settings, #program)
    }
}

/// Gives the call of `body` or `tree`, but not its arguments, the span of the return type.
///
/// A wrong return type violates a bound of `returns` and one of this call. The compiler reports it
/// once if both have the same span.
fn at_return_type(call: TokenStream, args: &MainArgs, output: &ReturnType) -> TokenStream {
    let ReturnType::Type(_, ty) = output else {
        return call;
    };
    if args.krate.is_some() {
        return call; // a path of the user's may begin with `$crate`, whose span carries its meaning
    }
    let mut spans = ty.to_token_stream().into_iter().map(|token| token.span());
    let first = spans.next().unwrap_or_else(Span::call_site);
    let last = spans.last().unwrap_or(first);
    call.into_iter()
        .enumerate()
        .map(|(index, mut token)| {
            token.set_span(if index == 0 { first } else { last });
            token
        })
        .collect()
}

fn settings(args: &MainArgs, krate: &TokenStream) -> TokenStream {
    let name = match &args.name {
        Some(name) => name.to_token_stream(),
        None => quote!(::core::env!("CARGO_PKG_NAME")),
    };
    let workers = match args.workers.as_ref().map(|workers| &workers.wanted) {
        Some(Wanted::Count(count)) => quote!(.workers(#count)),
        Some(Wanted::Auto) => quote!(.workers_auto()),
        Some(Wanted::Roles(_)) | None => TokenStream::new(),
    };
    // One is what there is without the feature, too.
    let more = args.threads.as_ref().filter(|threads| threads.to_string() != "1");
    let threads = more.map(|threads| quote!(.threads(#threads)));
    let init = args.init.as_ref().map(|path| quote!(.init(#path)));
    quote!(#krate::Settings::new(#name) #workers #threads #init)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: TokenStream, item: TokenStream) -> String {
        plain(&expand(args, item))
    }

    /// Without spaces: how many there are depends on where tokens come from.
    fn plain(tokens: &TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    #[test]
    fn a_parameter_makes_the_body_the_worker() {
        let args = quote!(workers = 4, threads = 2, init = setup::limits);
        let item = quote! {
            #[allow(unused)]
            pub async fn main(cx: Context) -> Result<()> { serve(cx).await }
        };
        let expected = quote! {
            pub fn main() -> ::std::process::ExitCode {
                #[allow(unused)]
                async fn main(cx: Context) -> Result<()> { serve(cx).await }
                ::rclust::__private::returns::<Result<()>>();
                ::rclust::boot(
                    ::rclust::Settings::new(::core::env!("CARGO_PKG_NAME"))
                        .workers(4).threads(2).init(setup::limits),
                    ::rclust::body(|cx: Context| main(cx))
                )
            }
        };
        assert_eq!(expanded(args, item), plain(&expected));
    }

    #[test]
    fn without_a_parameter_the_body_gets_a_list_of_roles() {
        let args = quote!(workers(Sum, lib::Cache<u64>), name = "shop", crate = hidden::rclust);
        let expected = quote! {
            fn main() -> ::std::process::ExitCode {
                async fn main() {}
                hidden::rclust::__private::returns::<()>();
                hidden::rclust::boot(
                    hidden::rclust::Settings::new("shop"),
                    hidden::rclust::tree(
                        ::std::vec![
                            hidden::rclust::Role::of::<Sum>(),
                            hidden::rclust::Role::of::<lib::Cache<u64>>()
                        ],
                        main
                    )
                )
            }
        };
        assert_eq!(
            expanded(
                args,
                quote!(
                    async fn main() {}
                )
            ),
            plain(&expected)
        );
    }

    #[test]
    fn an_unreadable_item_is_returned_beside_the_error() {
        let item = quote!(
            async fn main(cx: Context);
        );
        let output = expanded(TokenStream::new(), item.clone());
        assert!(output.contains("compile_error") && output.ends_with(&plain(&item)), "{output}");
    }

    #[test]
    fn after_a_refusal_an_empty_main_stands_in() {
        for (args, item) in [
            ("workers = 0", "async fn main(cx: Context) {}"),
            ("workers = 2", "async fn main() {}"),
            ("workers(A)", "async fn main(cx: Context) {}"),
            ("", "async fn main() {}"),
            ("", "fn main(cx: Context) {}"),
            ("", "#[::tokio::main] async fn main(cx: Context) {}"),
        ] {
            let output = expanded(args.parse().unwrap(), item.parse().unwrap());
            assert_eq!(output.matches("compile_error").count(), 1, "{output}");
            assert!(output.ends_with("fnmain(){}"), "{output}");
        }
    }
}
