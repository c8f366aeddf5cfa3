// RUN: split-region{k=2} cpu:1x8
// Slots that are given, not counted: two tokens may have the same one. All stays as it was.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<64x32xf32>, %w: tensor<32x32xf32>, %expert: tensor<64xi32>, %gate: tensor<64xf32>, %given: tensor<64xi32>) -> tensor<64x32xf32> {
    %h = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<64x32xf32>, tensor<32x32xf32>) -> tensor<64x32xf32>
    %e = stablehlo.broadcast_in_dim %expert, dims = [0] : (tensor<64xi32>) -> tensor<64x16xi32>
    %es = stablehlo.iota dim = 1 : tensor<64x16xi32>
    %mine = stablehlo.compare EQ, %e, %es, SIGNED : (tensor<64x16xi32>, tensor<64x16xi32>) -> tensor<64x16xi1>
    %hot = stablehlo.convert %mine : (tensor<64x16xi1>) -> tensor<64x16xi32>
    %none = stablehlo.constant dense<0> : tensor<i32>
    %count = "stablehlo.reduce_window"(%hot, %none) <{padding = dense<[[63, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 64, 1>}> ({
    ^bb0(%a: tensor<i32>, %b: tensor<i32>):
      %s = stablehlo.add %a, %b : tensor<i32>
      stablehlo.return %s : tensor<i32>
    }) : (tensor<64x16xi32>, tensor<i32>) -> tensor<64x16xi32>
    %before = stablehlo.subtract %count, %hot : tensor<64x16xi32>
    %own = stablehlo.multiply %before, %hot : tensor<64x16xi32>
    %rank = stablehlo.reduce(%own init: %none) applies stablehlo.add across dimensions = [1] : (tensor<64x16xi32>, tensor<i32>) -> tensor<64xi32>
    %r = stablehlo.broadcast_in_dim %given, dims = [0] : (tensor<64xi32>) -> tensor<64x4xi32>
    %rs = stablehlo.iota dim = 1 : tensor<64x4xi32>
    %here = stablehlo.compare EQ, %r, %rs, SIGNED : (tensor<64x4xi32>, tensor<64x4xi32>) -> tensor<64x4xi1>
    %row = stablehlo.convert %mine : (tensor<64x16xi1>) -> tensor<64x16xf32>
    %slot = stablehlo.convert %here : (tensor<64x4xi1>) -> tensor<64x4xf32>
    %rows = stablehlo.broadcast_in_dim %row, dims = [0, 1] : (tensor<64x16xf32>) -> tensor<64x16x4xf32>
    %slots = stablehlo.broadcast_in_dim %slot, dims = [0, 2] : (tensor<64x4xf32>) -> tensor<64x16x4xf32>
    %mask = stablehlo.multiply %rows, %slots : tensor<64x16x4xf32>
    %weights = stablehlo.broadcast_in_dim %gate, dims = [0] : (tensor<64xf32>) -> tensor<64x16x4xf32>
    %combine = stablehlo.multiply %mask, %weights : tensor<64x16x4xf32>
    %sent = stablehlo.dot_general %mask, %h, contracting_dims = [0] x [0] : (tensor<64x16x4xf32>, tensor<64x32xf32>) -> tensor<16x4x32xf32>
    %out = "stablehlo.all_to_all"(%sent) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %y = stablehlo.dot_general %out, %w, contracting_dims = [2] x [0] : (tensor<16x4x32xf32>, tensor<32x32xf32>) -> tensor<16x4x32xf32>
    %home = "stablehlo.all_to_all"(%y) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %z = stablehlo.dot_general %combine, %home, contracting_dims = [1, 2] x [0, 1] : (tensor<64x16x4xf32>, tensor<16x4x32xf32>) -> tensor<64x32xf32>
    return %z : tensor<64x32xf32>
  }
}
// CHECK-NOT: scatter
// CHECK: stablehlo.dot_general {{.*}} (tensor<64x16x4xf32>, tensor<64x32xf32>) -> tensor<16x4x32xf32>
// CHECK: "stablehlo.all_to_all"{{.*}} tensor<16x4x32xf32>
// CHECK: "stablehlo.all_to_all"{{.*}} tensor<16x4x32xf32>
// CHECK: stablehlo.dot_general {{.*}} (tensor<64x16x4xf32>, tensor<16x4x32xf32>) -> tensor<64x32xf32>
