//! A `main` of the user's own that calls boot, and a body that is the worker.

use std::process::ExitCode;

use rclust::cluster;

/// Prints every event of the supervisor with its fields.
struct Printer;

impl tracing::Subscriber for Printer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("rclust")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!(" {}={value:?}", field.name()));
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        println!("{}{}", event.metadata().target(), fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn main() -> ExitCode {
    // Before boot: runs in every process.
    let way = std::env::args().nth(1).unwrap_or_default();
    if way == "traced" {
        tracing::subscriber::set_global_default(Printer).expect("the first subscriber");
    }
    let settings = rclust::Settings::new("embedded").workers(2);
    rclust::boot(settings, rclust::body(move |cx| body(way, cx)))
}

async fn body(way: String, cx: cluster::Context) -> cluster::Result<()> {
    match way.as_str() {
        "returns-at-once" => return Ok(()),
        "exits-at-once" => std::process::exit(0),
        "fails-later" if cx.id().incarnation.0 > 1 && cx.slot() == 0 => return Err("no more".into()),
        _ => cx.ready(),
    }
    println!("{} is {}", cx.name(), std::process::id());
    cx.shutdown().await;
    Ok(())
}
