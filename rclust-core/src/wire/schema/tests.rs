use std::collections::{BTreeMap, HashMap, HashSet};
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI8, NonZeroU32, NonZeroU64};
use std::time::{Duration, SystemTime};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Fingerprint, Untraceable, fingerprint, trace};
use crate::{Never, Reply, WorkerRef};

fn of<T: DeserializeOwned>() -> Fingerprint {
    fingerprint::<T>().unwrap()
}

/// Nothing of it stayed unseen.
fn whole<T: DeserializeOwned>() -> Fingerprint {
    let traced = trace::<T>().unwrap();
    assert_eq!(traced.unseen, 0, "{}", std::any::type_name::<T>());
    traced.fingerprint
}

#[track_caller]
fn all_differ(prints: &[Fingerprint]) {
    for (n, print) in prints.iter().enumerate() {
        assert_eq!(prints.iter().position(|other| other == print), Some(n), "two are the same");
    }
}

/// Modules with a type `T` each.
macro_rules! types {
    ($($module:ident { $($code:tt)* })*) => {$(
        mod $module {
            #![allow(dead_code)] // types are traced here, never made
            use super::*;
            $($code)*
        }
    )*};
}

/// The fingerprints of the `T`s.
macro_rules! prints {
    ($($module:ident)*) => { [$(whole::<$module::T>()),*] };
}

mod same {
    use super::*;

    types! {
        a { #[derive(Deserialize)] pub(super) enum Part { X(u8), Y { z: Vec<T> } }
            #[derive(Deserialize)] pub(super) struct T { part: Option<Part>, n: u64, other: Option<Part> } }
        b { #[derive(Deserialize)] pub(super) enum Part { X(u8), Y { z: Vec<T> } }
            #[derive(Deserialize)] pub(super) enum Other { X(u8), Y { z: Vec<T> } }
            #[derive(Deserialize)] pub(super) struct T { part: Option<Part>, n: u64, other: Option<Part> } }
        // The second part is a type of its own, which looks the same to serde.
        c { pub(super) mod inner { use super::*;
                #[derive(Deserialize)] pub(in super::super) enum Part { X(u8), Y { z: Vec<super::T> } } }
            #[derive(Deserialize)] pub(super) enum Part { X(u8), Y { z: Vec<T> } }
            #[derive(Deserialize)] pub(super) struct T { part: Option<Part>, n: u64, other: Option<inner::Part> } }
        // What does not change what is read.
        d { #[derive(Deserialize)] #[serde(rename = "Part")] pub(super) enum Renamed { X(u8), Y { #[serde(rename = "z")] zed: std::collections::VecDeque<T> } }
            #[derive(Deserialize)] pub(super) struct T {
                part: Option<Renamed>, n: u64, #[serde(default)] other: Option<Renamed>, #[serde(skip)] gone: u32 } }
    }

    #[test]
    fn the_module_is_no_part_of_it() {
        let [a, b, c, d] = prints!(a b c d);
        assert_eq!([b, c, d], [a; 3]);
    }

    #[test]
    fn it_is_the_same_for_ever() {
        // These change only with the way they are made, and then two versions of this crate disagree about every type.
        assert_eq!(format!("{:?}", whole::<u32>()), "41f4d3dfbf3ecf4c");
        assert_eq!(format!("{:?}", whole::<a::T>()), "9a37fa076baebbb1");
        assert_eq!(format!("{:?}", whole::<HashMap<String, Result<SocketAddr, Duration>>>()), "9f0b2b13d0bf1aad");
    }
}

mod changed {
    use super::*;

    types! {
        a { #[derive(Deserialize)] pub(super) struct T { a: u32, b: String, c: u8 } }
        renamed { #[derive(Deserialize)] #[serde(rename = "T2")] pub(super) struct T { a: u32, b: String, c: u8 } }
        renamed_field { #[derive(Deserialize)] pub(super) struct T { #[serde(rename = "x")] a: u32, b: String, c: u8 } }
        added { #[derive(Deserialize)] pub(super) struct T { a: u32, b: String, c: u8, d: () } }
        removed { #[derive(Deserialize)] pub(super) struct T { a: u32, b: String } }
        skipped { #[derive(Deserialize)] pub(super) struct T { a: u32, #[serde(skip)] b: String, c: u8 } }
        reordered { #[derive(Deserialize)] pub(super) struct T { b: String, a: u32, c: u8 } }
        wider { #[derive(Deserialize)] pub(super) struct T { a: u64, b: String, c: u8 } }
        signed { #[derive(Deserialize)] pub(super) struct T { a: i32, b: String, c: u8 } }
        bytes { #[derive(Deserialize)] pub(super) struct T { a: u32, b: Bytes, c: u8 } }
        numbers { #[derive(Deserialize)] pub(super) struct T { a: u32, b: Vec<u8>, c: u8 } }
        optional { #[derive(Deserialize)] pub(super) struct T { a: Option<u32>, b: String, c: u8 } }
        tuple { #[derive(Deserialize)] pub(super) struct T(u32, String, u8); }
        unit { #[derive(Deserialize)] pub(super) struct T; }
        empty { #[derive(Deserialize)] pub(super) struct T {} }
        newtype { #[derive(Deserialize)] pub(super) struct T(u32); }
        other_newtype { #[derive(Deserialize)] pub(super) struct T(u64); }
    }

    #[test]
    fn in_a_struct() {
        all_differ(
            &prints!(a renamed renamed_field added removed skipped reordered wider signed bytes numbers optional
            tuple unit empty newtype other_newtype),
        );
    }

    types! {
        e { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C { x: u8, y: u8 }, D(u8, u16) } }
        variant_added { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C { x: u8, y: u8 }, D(u8, u16), E } }
        variant_removed { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C { x: u8, y: u8 } } }
        variants_reordered { #[derive(Deserialize)] pub(super) enum T { B(u8), A, C { x: u8, y: u8 }, D(u8, u16) } }
        variant_renamed { #[derive(Deserialize)] pub(super) enum T { A, B2(u8), C { x: u8, y: u8 }, D(u8, u16) } }
        unit_to_new { #[derive(Deserialize)] pub(super) enum T { A(()), B(u8), C { x: u8, y: u8 }, D(u8, u16) } }
        new_to_tuple { #[derive(Deserialize)] pub(super) enum T { A, B((u8,)), C { x: u8, y: u8 }, D(u8, u16) } }
        struct_to_tuple { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C(u8, u8), D(u8, u16) } }
        in_variant { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C { x: u8, y: u8 }, D(u8, u32) } }
        fields_reordered { #[derive(Deserialize)] pub(super) enum T { A, B(u8), C { y: u8, x: u8 }, D(u8, u16) } }
        none { #[derive(Deserialize)] pub(super) enum T {} }
    }

    #[test]
    fn in_an_enum() {
        all_differ(
            &prints!(e variant_added variant_removed variants_reordered variant_renamed unit_to_new new_to_tuple
            struct_to_tuple in_variant fields_reordered none),
        );
    }

    // The change is in an enum in the last field of an enum in an optional struct in a map.
    types! {
        deep { #[derive(Deserialize)] pub(super) enum Kind { P, Q(u32) }
            #[derive(Deserialize)] pub(super) enum Part { X, Y(u8, Kind) }
            #[derive(Deserialize)] pub(super) struct Page<P> { pub(super) page: P }
            #[derive(Deserialize)] pub(super) struct T { map: HashMap<String, Option<Page<Part>>> } }
        deep_changed { #[derive(Deserialize)] pub(super) enum Kind { P, Q(u64) }
            #[derive(Deserialize)] pub(super) enum Part { X, Y(u8, Kind) }
            #[derive(Deserialize)] pub(super) struct T { map: HashMap<String, Option<deep::Page<Part>>> } }
        deep_swapped { #[derive(Deserialize)] pub(super) enum Kind { Q(u32), P }
            #[derive(Deserialize)] pub(super) enum Part { X, Y(u8, Kind) }
            #[derive(Deserialize)] pub(super) struct T { map: HashMap<String, Option<deep::Page<Part>>> } }
        two_pages { #[derive(Deserialize)] pub(super) struct T { a: deep::Page<u32>, b: deep::Page<String> } }
        other_pages { #[derive(Deserialize)] pub(super) struct T { a: deep::Page<u32>, b: deep::Page<u32> } }
    }

    #[test]
    fn deep_inside() {
        all_differ(&prints!(deep deep_changed deep_swapped two_pages other_pages));
    }

    #[test]
    fn in_what_has_no_name() {
        all_differ(&[
            whole::<u8>(),
            whole::<u16>(),
            whole::<u32>(),
            whole::<u64>(),
            whole::<u128>(),
            whole::<i8>(),
            whole::<i16>(),
            whole::<i32>(),
            whole::<i64>(),
            whole::<i128>(),
            whole::<f32>(),
            whole::<f64>(),
            whole::<bool>(),
            whole::<char>(),
            whole::<String>(),
            whole::<Bytes>(),
            whole::<()>(),
            whole::<PhantomData<u8>>(),
            whole::<Option<u8>>(),
            whole::<Option<Option<u8>>>(),
            whole::<Vec<u8>>(),
            whole::<Vec<Vec<u8>>>(),
            whole::<[u8; 1]>(),
            whole::<[u8; 2]>(),
            whole::<(u8, u16)>(),
            whole::<(u16, u8)>(),
            whole::<HashMap<u8, u16>>(),
            whole::<HashMap<u16, u8>>(),
        ]);
        assert_eq!(whole::<[u8; 2]>(), whole::<(u8, u8)>());
        assert_eq!(whole::<Vec<u8>>(), whole::<HashSet<u8>>());
        assert_eq!(whole::<HashMap<u8, u16>>(), whole::<BTreeMap<u8, u16>>());
        assert_eq!(whole::<String>(), whole::<Box<std::path::PathBuf>>());
    }
}

/// Bytes as serde_bytes reads them.
struct Bytes;

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Any;
        impl serde::de::Visitor<'_> for Any {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes)
            }
        }
        deserializer.deserialize_byte_buf(Any)
    }
}

mod hard;
mod limits;
