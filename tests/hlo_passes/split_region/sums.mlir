// RUN: split-region{k=2} cpu:1x8
// A largest element is found part by part, as narrow as it was. What adds up over tokens does so part by part where it is small, in 32 bits; a large sum is made
// of joined rows. Every part has a name of its own for the bias that they share.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<64x32xbf16>, %w: tensor<32x32xbf16>, %bias: tensor<32xbf16>, %at: tensor<64x2xi32>, %to: tensor<64x1xi32>) -> (tensor<64x32xbf16>, tensor<32xbf16>, tensor<32xbf16>, tensor<32x32xbf16>, tensor<512x32xbf16>) {
    %h = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<64x32xbf16>, tensor<32x32xbf16>) -> tensor<64x32xbf16>
    %bs = stablehlo.broadcast_in_dim %bias, dims = [1] : (tensor<32xbf16>) -> tensor<64x32xbf16>
    %g = stablehlo.add %h, %bs : tensor<64x32xbf16>
    %zero = stablehlo.constant dense<0.0> : tensor<16x4x32xbf16>
    %b = "stablehlo.scatter"(%zero, %at, %g) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>, unique_indices = true}> ({
    ^bb0(%old: tensor<bf16>, %new: tensor<bf16>):
      %sum = stablehlo.add %old, %new : tensor<bf16>
      stablehlo.return %sum : tensor<bf16>
    }) : (tensor<16x4x32xbf16>, tensor<64x2xi32>, tensor<64x32xbf16>) -> tensor<16x4x32xbf16>
    %out = "stablehlo.all_to_all"(%b) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xbf16>) -> tensor<16x4x32xbf16>
    %e = stablehlo.dot_general %out, %w, contracting_dims = [2] x [0] : (tensor<16x4x32xbf16>, tensor<32x32xbf16>) -> tensor<16x4x32xbf16>
    %home = "stablehlo.all_to_all"(%e) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xbf16>) -> tensor<16x4x32xbf16>
    %y = "stablehlo.gather"(%home, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 1, 32>}> : (tensor<16x4x32xbf16>, tensor<64x2xi32>) -> tensor<64x32xbf16>
    %start = stablehlo.constant dense<0.0> : tensor<bf16>
    %db = stablehlo.reduce(%y init: %start) applies stablehlo.add across dimensions = [0] : (tensor<64x32xbf16>, tensor<bf16>) -> tensor<32xbf16>
    %least = stablehlo.constant dense<0xFF80> : tensor<bf16>
    %top = stablehlo.reduce(%y init: %least) applies stablehlo.maximum across dimensions = [0] : (tensor<64x32xbf16>, tensor<bf16>) -> tensor<32xbf16>
    %p = stablehlo.dot_general %y, %g, contracting_dims = [0] x [0] : (tensor<64x32xbf16>, tensor<64x32xbf16>) -> tensor<32x32xbf16>
    %dw = stablehlo.transpose %p, dims = [1, 0] : (tensor<32x32xbf16>) -> tensor<32x32xbf16>
    %none = stablehlo.constant dense<0.0> : tensor<512x32xbf16>
    %table = "stablehlo.scatter"(%none, %to, %y) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
    ^bb0(%old: tensor<bf16>, %new: tensor<bf16>):
      %sum = stablehlo.add %old, %new : tensor<bf16>
      stablehlo.return %sum : tensor<bf16>
    }) : (tensor<512x32xbf16>, tensor<64x1xi32>, tensor<64x32xbf16>) -> tensor<512x32xbf16>
    return %y, %db, %top, %dw, %table : tensor<64x32xbf16>, tensor<32xbf16>, tensor<32xbf16>, tensor<32x32xbf16>, tensor<512x32xbf16>
  }
}
// CHECK: stablehlo.optimization_barrier {{.*}} tensor<32xbf16>, tensor<i32>
// CHECK-NEXT: stablehlo.broadcast_in_dim {{.*}} -> tensor<32x32xbf16>
// CHECK: stablehlo.optimization_barrier {{.*}} tensor<32xbf16>, tensor<i32>
// CHECK-NEXT: stablehlo.broadcast_in_dim {{.*}} -> tensor<32x32xbf16>
// CHECK: stablehlo.convert {{.*}} (tensor<32x32xbf16>) -> tensor<32x32xf32>
// CHECK: stablehlo.reduce{{.*}} (tensor<32x32xf32>, tensor<f32>) -> tensor<32xf32>
// CHECK: stablehlo.reduce{{.*}} (tensor<32x32xf32>, tensor<f32>) -> tensor<32xf32>
// CHECK-NEXT: stablehlo.add {{.*}} tensor<32xf32>
// CHECK-NEXT: stablehlo.convert {{.*}} (tensor<32xf32>) -> tensor<32xbf16>
// CHECK: stablehlo.reduce{{.*}} applies stablehlo.maximum {{.*}} -> tensor<32xbf16>
// CHECK-NEXT: stablehlo.reduce{{.*}} applies stablehlo.maximum {{.*}} -> tensor<32xbf16>
// CHECK-NEXT: stablehlo.maximum {{.*}} tensor<32xbf16>
// CHECK: stablehlo.dot_general {{.*}} -> tensor<32x32xf32>
// CHECK-NEXT: stablehlo.dot_general {{.*}} -> tensor<32x32xf32>
// CHECK-NEXT: stablehlo.add {{.*}} tensor<32x32xf32>
// CHECK: stablehlo.concatenate {{.*}} -> tensor<64x32xbf16>
// CHECK-NEXT: stablehlo.optimization_barrier {{.*}} tensor<64x32xbf16>
// CHECK: "stablehlo.scatter"
// CHECK: (tensor<512x32xbf16>, tensor<64x1xi32>, tensor<64x32xbf16>) -> tensor<512x32xbf16>
