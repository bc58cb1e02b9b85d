//! A program in classic BPF that spreads connections over the sockets of the slots that are ready. Pure.

/// One instruction: `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// BPF_LD | BPF_W | BPF_ABS at SKF_AD_OFF + SKF_AD_RANDOM: a random number.
const LOAD_RANDOM: Instruction = Instruction { code: 0x20, if_true: 0, if_false: 0, value: 0xffff_f000 + 56 };

/// BPF_ALU | BPF_MOD | BPF_K.
const MODULO: u16 = 0x94;

/// BPF_JMP | BPF_JEQ | BPF_K.
const IF_EQUAL: u16 = 0x15;

/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

/// Instructions that a program may have (BPF_MAXINSNS).
const LONGEST: usize = 4096;

/// A program that returns one of `places`, each as often as the others. `None`: nothing to choose, or too long for the kernel.
pub(crate) fn among(places: &[u32]) -> Option<Vec<Instruction>> {
    let (last, others) = places.split_last()?;
    if 3 + 2 * others.len() > LONGEST {
        return None;
    }
    let modulo = Instruction { code: MODULO, if_true: 0, if_false: 0, value: places.len() as u32 };
    let mut program = vec![LOAD_RANDOM, modulo];
    for (n, place) in others.iter().enumerate() {
        program.push(Instruction { code: IF_EQUAL, if_true: 0, if_false: 1, value: n as u32 });
        program.push(Instruction { code: RETURN, if_true: 0, if_false: 0, value: *place });
    }
    program.push(Instruction { code: RETURN, if_true: 0, if_false: 0, value: *last });
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer for this random number.
    fn run(program: &[Instruction], random: u32) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            at += 1;
            match code {
                0x20 => a = random,
                MODULO => a %= value,
                IF_EQUAL => at += usize::from(if a == value { if_true } else { if_false }),
                RETURN => return value,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn only_ready_slots_are_chosen_each_as_often_as_the_others() {
        let program = among(&[0, 2, 3, 7]).unwrap();
        let chosen: Vec<u32> = (0..8).map(|random| run(&program, random)).collect();
        assert_eq!(chosen, [0, 2, 3, 7, 0, 2, 3, 7]);
        assert_eq!(run(&among(&[5]).unwrap(), 77), 5);
        assert_eq!(among(&[]), None);
        let many: Vec<u32> = (0..3000).collect();
        assert_eq!(among(&many), None, "the kernel refuses longer ones: its own hash has to do");
        assert!(among(&many[..2047]).is_some());
    }
}
