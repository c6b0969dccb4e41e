;; Rows of x times four rows of w, each product of two rows summed in float64: what fast_matmul.js calls.
;; Two numbers of a row are worked on at a time, in the halves of one 128-bit register, and two rows of x times four of
;; w in one go, so that each number that is read is used more than once. Addresses and lengths are in bytes.
(module
  (memory (export "memory") 1)
  (func (export "fourRows")
    (param $x i32)                  ;; rows of x, float32, one behind the other: an even number of them
    (param $w i32)                  ;; four rows of w, float32
    (param $y i32)                  ;; the result: for each row of x four numbers, float32
    (param $pairs i32)              ;; how many pairs of rows x has
    (param $row i32)                ;; the length of a row of x and of w, a multiple of 8
    (local $i i32) (local $x1 i32) (local $w1 i32) (local $w2 i32) (local $w3 i32)
    (local $a v128) (local $b v128) (local $p v128)
    (local $a0 v128) (local $a1 v128) (local $a2 v128) (local $a3 v128)
    (local $b0 v128) (local $b1 v128) (local $b2 v128) (local $b3 v128)
    (local.set $w1 (i32.add (local.get $w) (local.get $row)))
    (local.set $w2 (i32.add (local.get $w1) (local.get $row)))
    (local.set $w3 (i32.add (local.get $w2) (local.get $row)))
    (loop $pair
      (local.set $x1 (i32.add (local.get $x) (local.get $row)))
      (local.set $a0 (v128.const f64x2 0 0)) (local.set $a1 (v128.const f64x2 0 0))
      (local.set $a2 (v128.const f64x2 0 0)) (local.set $a3 (v128.const f64x2 0 0))
      (local.set $b0 (v128.const f64x2 0 0)) (local.set $b1 (v128.const f64x2 0 0))
      (local.set $b2 (v128.const f64x2 0 0)) (local.set $b3 (v128.const f64x2 0 0))
      (local.set $i (i32.const 0))
      (loop $column
        (local.set $a (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $x) (local.get $i)))))
        (local.set $b (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $x1) (local.get $i)))))
        (local.set $p (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $w) (local.get $i)))))
        (local.set $a0 (f64x2.add (local.get $a0) (f64x2.mul (local.get $a) (local.get $p))))
        (local.set $b0 (f64x2.add (local.get $b0) (f64x2.mul (local.get $b) (local.get $p))))
        (local.set $p (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $w1) (local.get $i)))))
        (local.set $a1 (f64x2.add (local.get $a1) (f64x2.mul (local.get $a) (local.get $p))))
        (local.set $b1 (f64x2.add (local.get $b1) (f64x2.mul (local.get $b) (local.get $p))))
        (local.set $p (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $w2) (local.get $i)))))
        (local.set $a2 (f64x2.add (local.get $a2) (f64x2.mul (local.get $a) (local.get $p))))
        (local.set $b2 (f64x2.add (local.get $b2) (f64x2.mul (local.get $b) (local.get $p))))
        (local.set $p (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $w3) (local.get $i)))))
        (local.set $a3 (f64x2.add (local.get $a3) (f64x2.mul (local.get $a) (local.get $p))))
        (local.set $b3 (f64x2.add (local.get $b3) (f64x2.mul (local.get $b) (local.get $p))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (br_if $column (i32.lt_u (local.get $i) (local.get $row))))
      (f32.store offset=0 (local.get $y) (call $sum (local.get $a0)))
      (f32.store offset=4 (local.get $y) (call $sum (local.get $a1)))
      (f32.store offset=8 (local.get $y) (call $sum (local.get $a2)))
      (f32.store offset=12 (local.get $y) (call $sum (local.get $a3)))
      (f32.store offset=16 (local.get $y) (call $sum (local.get $b0)))
      (f32.store offset=20 (local.get $y) (call $sum (local.get $b1)))
      (f32.store offset=24 (local.get $y) (call $sum (local.get $b2)))
      (f32.store offset=28 (local.get $y) (call $sum (local.get $b3)))
      (local.set $y (i32.add (local.get $y) (i32.const 32)))
      (local.set $x (i32.add (local.get $x1) (local.get $row)))
      (local.set $pairs (i32.sub (local.get $pairs) (i32.const 1)))
      (br_if $pair (local.get $pairs))))
  (func $sum (param $v v128) (result f32)
    (f32.demote_f64 (f64.add (f64x2.extract_lane 0 (local.get $v)) (f64x2.extract_lane 1 (local.get $v))))))
