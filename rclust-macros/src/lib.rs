//! The attribute of rclust. Use it as `rclust::cluster::main`; this crate is a part of `rclust` and
//! makes no promise of its own.
//!
//! The macro emits paths under `::rclust` and imports nothing of ours. Its documentation is at
//! [`macro@main`]; programs that use it are in the guide of the crate `rclust`, where they are compiled.

mod main_args;
mod main_expand;

use proc_macro::TokenStream;

/// Makes `async fn main` the start of a cluster.
///
/// The program decides which process it is before any code of yours runs: the supervisor, or one of
/// its workers. The attribute brings the runtime, so there is no `#[tokio::main]` beside it.
///
/// # The two forms
///
/// *With a parameter* the body is the worker. It runs once in each worker process, under the default
/// supervisor, which never gives up on workers that were ready.
///
/// ```text
/// use rclust::cluster;
///
/// #[cluster::main(workers = 4)]
/// async fn main(cx: cluster::Context) -> cluster::Result<()> {
///     let listener = cluster::net::TcpListener::bind("127.0.0.1:3000").await?;
///     serve(listener, cx.shutdown()).await
/// }
/// ```
///
/// *Without a parameter* the body runs in the supervisor only, where it builds the tree.
/// `workers(..)` lists the worker types that this binary can play: a new process finds its code in
/// this list. A tree that names another type fails at start, before any process is spawned.
///
/// ```text
/// use rclust::cluster::{self, Child, Pool, Supervisor};
///
/// #[cluster::main(workers(Sum, Cache<u64>))]
/// async fn main() -> cluster::Result<()> {
///     let cluster = Supervisor::one_for_one()
///         .child(Child::<Sum>::new("sum").args(0))
///         .child(Pool::<Cache<u64>>::new("cache").size(4))
///         .start().await?;
///     Ok(cluster.run().await?)
/// }
/// ```
///
/// The function must be called `main`, be `async`, and have neither generics nor a `const`,
/// `unsafe` or `extern` before it. It returns anything that implements `Outcome`.
///
/// # Options
///
/// Each at most once, separated by commas, in any order.
///
/// | option | form | meaning | if absent |
/// |---|---|---|---|
/// | `workers = N` | parameter | N worker processes, 1 to 4096 | as `"auto"` |
/// | `workers = "auto"` | parameter | `WEB_CONCURRENCY` if it is set, else the CPUs this process may use | |
/// | `workers(A, B<K>, lib::C)` | no parameter | the worker types that this binary can play, at least one | refused |
/// | `threads = N` | both | threads of each worker's runtime, 1 to 1024; needs rclust's feature `threads` | 1 |
/// | `name = "..."` | both | name of the cluster: 1 to 64 characters, no `/`, `[`, `]` or control characters | name of the package |
/// | `init = path::to::function` | both | runs in every process, when its role is known and no runtime exists yet; an error is a failed start | nothing runs |
/// | `crate = path::to::rclust` | both | where the expansion finds rclust | `::rclust` |
///
/// # Expansion
///
/// To the documented function `rclust::boot`, which any `main` may call itself. With a parameter:
///
/// ```text
/// fn main() -> ::std::process::ExitCode {
///     async fn main(cx: cluster::Context) -> cluster::Result<()> { /* as written */ }
///     ::rclust::__private::returns::<cluster::Result<()>>(); // reports a wrong return type there
///     ::rclust::boot(
///         ::rclust::Settings::new(::core::env!("CARGO_PKG_NAME")).workers(4),
///         ::rclust::body(|cx: cluster::Context| main(cx)),
///     )
/// }
/// ```
///
/// Without one, the last line is:
///
/// ```text
///     ::rclust::boot(
///         ::rclust::Settings::new(::core::env!("CARGO_PKG_NAME")),
///         ::rclust::tree(::std::vec![::rclust::Role::of::<Sum>(), ::rclust::Role::of::<Cache<u64>>()], main),
///     )
/// ```
///
/// Other attributes of `main` move to the inner function; a visibility stays on the outer one.
///
/// # Errors
///
/// Every misuse is a compile error at the word that is wrong, and says what is accepted.
/// Mistakes that do not depend on each other are reported together.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    main_expand::expand(args.into(), item.into()).into()
}
