//! Large types.

#![allow(dead_code)] // types are traced here, never made

use super::*;

macro_rules! levels {
    ($($name:ident $inner:ty;)*) => {$(
        #[derive(Deserialize)]
        struct $name { a: Box<$inner>, b: Box<$inner>, c: Box<$inner> }
    )*};
}

levels! {
    L1 u8; L2 L1; L3 L2; L4 L3; L5 L4; L6 L5; L7 L6; L8 L7; L9 L8; L10 L9;
    L11 L10; L12 L11; L13 L12; L14 L13; L15 L14; L16 L15; L17 L16; L18 L17; L19 L18; L20 L19;
}

#[derive(Deserialize)]
struct Wrap<T>(T);

type W8<T> = Wrap<Wrap<Wrap<Wrap<Wrap<Wrap<Wrap<Wrap<T>>>>>>>>;
type W64<T> = W8<W8<W8<W8<W8<W8<W8<W8<T>>>>>>>>;

#[derive(Deserialize)]
struct P<T>(Box<T>, Box<T>, Box<T>);

#[test]
fn limits_hold() {
    let levels = trace::<L20>().unwrap();
    assert!(levels.unseen == 0 && levels.visits < 2_000, "{levels:?}");
    // A tuple has no names to ask for: what stands behind more than can be built is not seen.
    let tuples = trace::<P<P<P<P<P<P<P<P<P<P<P<P<u8>>>>>>>>>>>>>().unwrap();
    assert!(tuples.unseen > 0 && tuples.visits < 2_000, "{tuples:?}");

    let deep = trace::<W8<W8<W8<W8<W8<W8<W8<u8>>>>>>>>().unwrap();
    assert_eq!(deep.unseen, 0);
    let deeper = trace::<W64<u8>>().unwrap();
    assert_eq!(deeper.unseen, 1);
    assert_eq!(deeper.fingerprint, of::<W64<u16>>());
}

macro_rules! many {
    ($($name:ident)*) => { #[derive(Deserialize)] enum Many { $($name { a: u8, b: Option<Box<Many>>, c: String }),* } };
}

many! {
    A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 C0 C1 C2 C3 C4 C5 C6 C7 C8 C9 D0 D1 D2 D3 D4 D5 D6 D7 D8 D9
    E0 E1 E2 E3 E4 E5 E6 E7 E8 E9 F0 F1 F2 F3 F4 F5 F6 F7 F8 F9 G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 H0 H1 H2 H3 H4 H5 H6 H7 H8 H9
    I0 I1 I2 I3 I4 I5 I6 I7 I8 I9 J0 J1 J2 J3 J4 J5 J6 J7 J8 J9 K0 K1 K2 K3 K4 K5 K6 K7 K8 K9 L0 L1 L2 L3 L4 L5 L6 L7 L8 L9
    M0 M1 M2 M3 M4 M5 M6 M7 M8 M9 N0 N1 N2 N3 N4 N5 N6 N7 N8 N9 O0 O1 O2 O3 O4 O5 O6 O7 O8 O9 P0 P1 P2 P3 P4 P5 P6 P7 P8 P9
    Q0 Q1 Q2 Q3 Q4 Q5 Q6 Q7 Q8 Q9 R0 R1 R2 R3 R4 R5 R6 R7 R8 R9 S0 S1 S2 S3 S4 S5 S6 S7 S8 S9 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9
}

#[test]
fn the_usual_costs_little() {
    // A visit costs some 300 ns where this is optimized.
    for (most, traced) in [(20, trace::<hard::Job>()), (1_000, trace::<Many>()), (40, trace::<SocketAddr>())] {
        let traced = traced.unwrap();
        assert!(traced.unseen == 0 && traced.visits <= most, "{traced:?}");
    }
}
