//! Types that resist.

#![allow(dead_code)] // types are traced here, never made

use super::*;

#[derive(Deserialize)]
enum LeafLast {
    Node(Box<LeafLast>, Box<LeafLast>),
    Tagged { at: Box<LeafLast>, tag: u8 },
    Leaf,
}

#[derive(Deserialize)]
struct Tree {
    kids: Vec<Tree>,
    named: HashMap<String, Tree>,
    left: Option<Box<Tree>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Nested(Vec<Nested>);

#[derive(Deserialize)]
enum Ping {
    Pong(Box<Pong>, u8),
}

#[derive(Deserialize)]
enum Pong {
    Ping(Box<Ping>),
    Ball(u16),
}

#[derive(Deserialize)]
struct Endless {
    on: Box<Endless>,
    and: u8,
}

#[derive(Deserialize)]
struct EndlessTuple(Box<EndlessTuple>, u8);

#[test]
fn recursive_types_end() {
    all_differ(&[whole::<LeafLast>(), whole::<Tree>(), whole::<Nested>(), whole::<Ping>(), whole::<Pong>()]);
    // No value of these exists: one tells its fields by name, the other's second cannot be got at.
    whole::<Endless>();
    assert_eq!(trace::<EndlessTuple>().unwrap().unseen, 1);
}

#[test]
fn types_of_std() {
    all_differ(&[
        whole::<Duration>(),
        whole::<SystemTime>(),
        whole::<SocketAddr>(),
        whole::<IpAddr>(),
        whole::<NonZeroU32>(),
        whole::<NonZeroU64>(),
        whole::<NonZeroI8>(),
        whole::<String>(),
        whole::<HashMap<String, IpAddr>>(),
        whole::<Result<u8, String>>(),
        whole::<std::ops::Range<u8>>(),
        whole::<std::ops::Bound<u8>>(),
        whole::<std::ffi::CString>(),
        whole::<[u64; 32]>(),
        whole::<Never>(),
        whole::<Option<Never>>(),
        whole::<(Option<Never>, u8)>(),
    ]);
    // Here its other variant cannot be read at all.
    assert_eq!(trace::<std::ffi::OsString>().unwrap().unseen, 1);
    // What is checked only when it is read is read as the number it is.
    assert_eq!(whole::<NonZeroU32>(), whole::<u32>());
}

#[derive(Deserialize)]
#[serde(try_from = "u32")]
struct NotZero;

impl TryFrom<u32> for NotZero {
    type Error = &'static str;
    fn try_from(n: u32) -> Result<NotZero, &'static str> {
        if n == 0 { Err("0") } else { Ok(NotZero) }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "(Colour, u8)")]
struct Blue;

#[derive(Deserialize)]
enum Colour {
    Red,
    Green(u8),
    Blue,
}

impl TryFrom<(Colour, u8)> for Blue {
    type Error = &'static str;
    fn try_from((colour, _): (Colour, u8)) -> Result<Blue, &'static str> {
        if matches!(colour, Colour::Blue) { Ok(Blue) } else { Err("not blue") }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Password;

impl TryFrom<String> for Password {
    type Error = &'static str;
    fn try_from(_: String) -> Result<Password, &'static str> {
        Err("wrong")
    }
}

struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Panics, D::Error> {
        let n = u64::deserialize(deserializer)?;
        // Not through the hook, which prints.
        if n == 0 { std::panic::resume_unwind(Box::new("0")) } else { Ok(Panics) }
    }
}

#[derive(Deserialize)]
struct Checked<P, Q> {
    checked: P,
    after: Q,
}

#[derive(Deserialize)]
enum Login<Q> {
    By(Checked<Password, Q>, u8),
    Other(Q),
}

#[test]
fn what_validates_is_offered_several_values() {
    whole::<(NotZero, u8)>();
    whole::<(Blue, u8)>();
    whole::<(NonZeroI8, Panics, u8)>();
    assert_ne!(whole::<(NotZero, u8)>(), whole::<(NotZero, u16)>());
}

#[test]
fn what_refuses_everything_is_passed_by() {
    // A struct's fields are found by name.
    assert_ne!(whole::<Checked<Password, u8>>(), whole::<Checked<Password, u16>>());
    assert_eq!(whole::<Checked<Password, u8>>(), whole::<Checked<String, u8>>());
    // What stands behind it in a tuple is not found; but that there is something is seen, and the rest.
    let (one, two) = (trace::<Login<u8>>().unwrap(), trace::<Login<u16>>().unwrap());
    assert_eq!((one.unseen, two.unseen), (1, 1));
    assert_ne!(one.fingerprint, two.fingerprint);
    assert_eq!(of::<(Password, u8)>(), of::<(Password, u16)>());
    assert_ne!(of::<(Password, u8)>(), of::<(Password, u8, u8)>());
    assert_eq!(trace::<(Password, u8)>().unwrap(), trace::<(Password, u8)>().unwrap());
}

#[derive(Deserialize)]
struct Aliases {
    #[serde(alias = "x", alias = "y")]
    a: u8,
    b: AliasedKind,
    #[serde(deserialize_with = "Bytes::deserialize")]
    c: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum AliasedKind {
    #[serde(alias = "Old", alias = "Older")]
    New(u8),
    #[serde(skip)]
    Gone(Password),
    #[serde(other)]
    Rest,
}

/// A struct that can be read in order only, and an array of which nobody sees the end.
struct InOrder<T>(Password, T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Fields<T> {
            type Value = InOrder<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("fields")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let missing = || A::Error::custom("too few");
                let password = fields.next_element()?.ok_or_else(missing)?;
                Ok(InOrder(password, fields.next_element()?.ok_or_else(missing)?))
            }
        }
        deserializer.deserialize_struct("InOrder", &["password", "rest"], Fields(PhantomData))
    }
}

struct Wide<const N: usize>;

impl<'de, const N: usize> Deserialize<'de> for Wide<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const N: usize>;
        impl<'de, const N: usize> serde::de::Visitor<'de> for Elements<N> {
            type Value = Wide<N>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("elements")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                while elements.next_element::<u8>()?.is_some() {}
                Ok(Wide)
            }
        }
        deserializer.deserialize_tuple(N, Elements)
    }
}

#[test]
fn names_that_are_not_places_are_not_missed() {
    whole::<Aliases>();
    assert_eq!(trace::<InOrder<u8>>().unwrap().unseen, 1);
    assert_eq!(of::<InOrder<u8>>(), of::<InOrder<u16>>());
    whole::<(Wide<1000>, u8)>();
    let wide = trace::<Has<Wide<1_000_000>>>().unwrap();
    assert!(wide.unseen == 1 && wide.visits < 10_000, "{wide:?}");
    all_differ(&[wide.fingerprint, of::<Has<Wide<1_000_001>>>(), of::<Has<Wide<1000>>>()]);
}

struct Silent;

impl<'de> Deserialize<'de> for Silent {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Silent, D::Error> {
        Err(D::Error::custom("not today"))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Untagged {
    A(u8),
    B(String),
}

#[derive(Deserialize)]
struct Has<T> {
    a: T,
    b: u8,
}

struct ByHand<const VERSION: u8>;

impl<'de, const VERSION: u8> Deserialize<'de> for ByHand<VERSION> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Blob<const VERSION: u8>;
        impl<'de, const VERSION: u8> serde::de::Visitor<'de> for Blob<VERSION> {
            type Value = ByHand<VERSION>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a blob")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
                Bytes::deserialize(inner)?;
                Err(D::Error::custom("no blob of mine"))
            }
        }
        deserializer.deserialize_newtype_struct(if VERSION == 1 { "Blob.v1" } else { "Blob.v2" }, Blob)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Login.v2")]
struct Named {
    a: u32,
}

#[test]
fn what_tells_nothing_has_none_unless_it_is_given_a_name() {
    assert_eq!(fingerprint::<Silent>(), Err(Untraceable));
    assert_eq!(fingerprint::<Untagged>(), Err(Untraceable));
    assert_eq!(trace::<Has<Silent>>().unwrap().unseen, 1);
    assert_ne!(of::<Has<Silent>>(), of::<Has<Untagged>>());
    assert_ne!(of::<ByHand<1>>(), of::<ByHand<2>>());
    assert_eq!(postcard::to_stdvec(&Named { a: 7 }).unwrap(), [7], "a name costs nothing");
}

#[derive(Deserialize)]
pub(super) enum Job {
    Add(u64),
    Total(Reply<u64>),
    Introduce(WorkerRef<Job>, Option<Reply<String>>, u8),
    Set { name: String, reply: Reply<Never>, at: Duration },
}

#[test]
fn ports_and_references_are_known_by_name() {
    whole::<Job>();
    all_differ(&[
        whole::<Reply<u64>>(),
        whole::<Reply<i64>>(),
        whole::<Reply<Vec<String>>>(),
        whole::<WorkerRef<u64>>(),
        whole::<(WorkerRef<u64>, u8)>(),
        whole::<()>(),
    ]);
    mod elsewhere {
        pub(super) enum Job {}
    }
    assert_eq!(whole::<Reply<Vec<Job>>>(), whole::<Reply<Vec<elsewhere::Job>>>(), "by names, without modules");
    // Elsewhere they are what they were.
    assert!(postcard::from_bytes::<Reply<u64>>(&[0; 16]).is_err());
    assert!(postcard::from_bytes::<WorkerRef<u64>>(&[0; 16]).is_err());
}
