// RUN: split-region{k=2} h100:1x8
// Experts that treat every row alone run on the rows of one part, in windows, before those of the
// next part have come. What others read of them (%r) is put together row by row.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<64x32xf32>, %w: tensor<2x32x32xf32>, %at: tensor<64x2xi32>) -> (tensor<64x32xf32>, tensor<2x32x32xf32>) {
    %zero = stablehlo.constant dense<0.0> : tensor<16x4x32xf32>
    %b = "stablehlo.scatter"(%zero, %at, %x) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>, unique_indices = true}> ({
    ^bb0(%old: tensor<f32>, %new: tensor<f32>):
      %sum = stablehlo.add %old, %new : tensor<f32>
      stablehlo.return %sum : tensor<f32>
    }) : (tensor<16x4x32xf32>, tensor<64x2xi32>, tensor<64x32xf32>) -> tensor<16x4x32xf32>
    %out = "stablehlo.all_to_all"(%b) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %rows = stablehlo.reshape %out : (tensor<16x4x32xf32>) -> tensor<8x2x4x32xf32>
    %g = stablehlo.dot_general %rows, %w, batching_dims = [1] x [0], contracting_dims = [3] x [1] : (tensor<8x2x4x32xf32>, tensor<2x32x32xf32>) -> tensor<2x8x4x32xf32>
    %r = stablehlo.tanh %g : tensor<2x8x4x32xf32>
    %dw = stablehlo.dot_general %r, %rows, batching_dims = [0] x [1], contracting_dims = [1, 2] x [0, 2] : (tensor<2x8x4x32xf32>, tensor<8x2x4x32xf32>) -> tensor<2x32x32xf32>
    %t = stablehlo.transpose %r, dims = [1, 0, 2, 3] : (tensor<2x8x4x32xf32>) -> tensor<8x2x4x32xf32>
    %e = stablehlo.reshape %t : (tensor<8x2x4x32xf32>) -> tensor<16x4x32xf32>
    %home = "stablehlo.all_to_all"(%e) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %y = "stablehlo.gather"(%home, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 1, 32>}> : (tensor<16x4x32xf32>, tensor<64x2xi32>) -> tensor<64x32xf32>
    %none = stablehlo.constant dense<0> : tensor<64x2xi32>
    %last = stablehlo.constant dense<[15, 3]> : tensor<2xi32>
    %lasts = stablehlo.broadcast_in_dim %last, dims = [1] : (tensor<2xi32>) -> tensor<64x2xi32>
    %ge = stablehlo.compare GE, %at, %none : (tensor<64x2xi32>, tensor<64x2xi32>) -> tensor<64x2xi1>
    %le = stablehlo.compare LE, %at, %lasts : (tensor<64x2xi32>, tensor<64x2xi32>) -> tensor<64x2xi1>
    %both = stablehlo.and %ge, %le : tensor<64x2xi1>
    %true = stablehlo.constant dense<true> : tensor<i1>
    %in = stablehlo.reduce(%both init: %true) applies stablehlo.and across dimensions = [1] : (tensor<64x2xi1>, tensor<i1>) -> tensor<64xi1>
    %mask = stablehlo.broadcast_in_dim %in, dims = [0] : (tensor<64xi1>) -> tensor<64x32xi1>
    %fill = stablehlo.constant dense<0.0> : tensor<64x32xf32>
    %z = stablehlo.select %mask, %y, %fill : tensor<64x32xi1>, tensor<64x32xf32>
    return %z, %dw : tensor<64x32xf32>, tensor<2x32x32xf32>
  }
}
// CHECK: stablehlo.custom_call @ragged_all_to_all
// CHECK: stablehlo.custom_call @ragged_all_to_all
// CHECK: stablehlo.while
// CHECK: stablehlo.compare {{ *}}LT
// CHECK: stablehlo.dot_general {{.*}} (tensor<1x2x32x32xf32>, tensor<2x32x32xf32>) -> tensor<2x1x32x32xf32>
// CHECK: stablehlo.while
// CHECK: [[R:%[0-9]+]] = stablehlo.reshape %{{.*}} : (tensor<64x32xf32>) -> tensor<2x8x4x32xf32>
// CHECK: stablehlo.dot_general [[R]], {{.*}} -> tensor<2x32x32xf32>
// CHECK: stablehlo.custom_call @ragged_all_to_all
// CHECK: stablehlo.custom_call @ragged_all_to_all
