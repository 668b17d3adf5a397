//! Which runs no other run beats.

/// Indices of the points that no other is as good as on every axis and better than on one, by the first
/// axis. Less is better. Of equal points the first stands for all.
pub(super) fn non_dominated<const AXES: usize>(points: &[[f64; AXES]]) -> Vec<usize> {
    let beats = |(a, one): (usize, &[f64; AXES]), (b, other): (usize, &[f64; AXES])| {
        let as_good = one.iter().zip(other).all(|(one, other)| one <= other);
        let better = one.iter().zip(other).any(|(one, other)| one < other);
        as_good && (better || a < b)
    };
    let mut kept: Vec<usize> = (0..points.len())
        .filter(|b| !points.iter().enumerate().any(|one| beats(one, (*b, &points[*b]))))
        .collect();
    kept.sort_by(|a, b| points[*a][0].total_cmp(&points[*b][0]).then(a.cmp(b)));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beaten_is_left_out() {
        let check = |points: &[[f64; 2]], expected: &[usize]| {
            assert_eq!(non_dominated(points), expected, "{points:?}");
        };
        check(&[], &[]);
        check(&[[2.0, 1.0], [1.0, 2.0]], &[1, 0]);
        check(&[[1.0, 1.0], [1.0, 1.0]], &[0]);
        check(&[[1.0, 2.0], [1.0, 1.0], [2.0, 1.0]], &[1]);
    }

    #[test]
    fn a_third_axis_keeps_more() {
        assert_eq!(non_dominated(&[[1.0, 1.0], [2.0, 2.0]]), [0]);
        assert_eq!(non_dominated(&[[1.0, 1.0, 2.0], [2.0, 2.0, 1.0]]), [0, 1]);
    }
}
