// RUN: split-region{k=2} cpu:1x8
// Indices wider than 32 bits are checked before they are narrowed: 2^32 + 3 is not row 3.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<64x32xf32>, %w: tensor<32x32xf32>, %at: tensor<64x2xi64>) -> tensor<64x32xf32> {
    %h = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<64x32xf32>, tensor<32x32xf32>) -> tensor<64x32xf32>
    %zero = stablehlo.constant dense<0.0> : tensor<16x4x32xf32>
    %b = "stablehlo.scatter"(%zero, %at, %h) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>, unique_indices = true}> ({
    ^bb0(%old: tensor<f32>, %new: tensor<f32>):
      %sum = stablehlo.add %old, %new : tensor<f32>
      stablehlo.return %sum : tensor<f32>
    }) : (tensor<16x4x32xf32>, tensor<64x2xi64>, tensor<64x32xf32>) -> tensor<16x4x32xf32>
    %out = "stablehlo.all_to_all"(%b) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %e = stablehlo.dot_general %out, %w, contracting_dims = [2] x [0] : (tensor<16x4x32xf32>, tensor<32x32xf32>) -> tensor<16x4x32xf32>
    %home = "stablehlo.all_to_all"(%e) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x4x32xf32>) -> tensor<16x4x32xf32>
    %y = "stablehlo.gather"(%home, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 1, 32>}> : (tensor<16x4x32xf32>, tensor<64x2xi64>) -> tensor<64x32xf32>
    %z = stablehlo.dot_general %y, %w, contracting_dims = [1] x [0] : (tensor<64x32xf32>, tensor<32x32xf32>) -> tensor<64x32xf32>
    return %z : tensor<64x32xf32>
  }
}
// CHECK: %[[ROW:.*]] = stablehlo.reshape {{.*}} -> tensor<32xi64>
// CHECK: %[[NATURAL:.*]] = stablehlo.bitcast_convert %[[ROW]] : (tensor<32xi64>) -> tensor<32xui64>
// CHECK: stablehlo.compare LT, %[[NATURAL]], {{.*}} : (tensor<32xui64>, tensor<32xui64>)
// CHECK: stablehlo.convert %[[ROW]] : (tensor<32xi64>) -> tensor<32xi32>
