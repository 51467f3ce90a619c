// Where a picture's edges lie in the patient.

const AXES = [['L', 'R'], ['P', 'A'], ['H', 'F']];
// An edge of an oblique picture has a second letter from about 14 degrees on.
const OBLIQUE = 0.25;

/** The letters at a picture's edges (PS3.3 C.7.6.1.1.1), by its ImageOrientationPatient (C.7.6.2.1.1: the directions of a
 *  row, then of a column, towards left, posterior and head): {left, right, top, bottom}; null where there is none. */
export function edgesOf(orientation) {
  const numbers = orientation.map(Number);
  const [row, column] = [numbers.slice(0, 3), numbers.slice(3, 6)];
  if (numbers.length !== 6 || !numbers.every(Number.isFinite) || !row.some(Boolean) || !column.some(Boolean)) return null;
  const back = (direction) => direction.map((value) => -value);
  return { left: letters(back(row)), right: letters(row), top: letters(back(column)), bottom: letters(column) };
}

function letters(direction) {
  const length = Math.hypot(...direction);
  return direction
    .map((value, axis) => ({ share: Math.abs(value) / length, letter: AXES[axis][value > 0 ? 0 : 1] }))
    .sort((one, two) => two.share - one.share)
    .filter(({ share }, index) => index === 0 || (index === 1 && share >= OBLIQUE))
    .map(({ letter }) => letter)
    .join('');
}
