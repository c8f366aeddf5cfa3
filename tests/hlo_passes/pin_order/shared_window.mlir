// RUN: pin-order
// Two exchanges in flight over one product: it is tied to the first, once.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<8x64xf32>, %z: tensor<8x64xf32>) -> (tensor<8x64xf32>, tensor<8x64xf32>, tensor<64x64xf32>) {
    %a = "stablehlo.all_to_all"(%x) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %b = "stablehlo.all_to_all"(%z) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %w = stablehlo.dot_general %z, %x, contracting_dims = [0] x [0] : (tensor<8x64xf32>, tensor<8x64xf32>) -> tensor<64x64xf32>
    %y = stablehlo.negate %a : tensor<8x64xf32>
    %v = stablehlo.negate %b : tensor<8x64xf32>
    return %y, %v, %w : tensor<8x64xf32>, tensor<8x64xf32>, tensor<64x64xf32>
  }
}
// CHECK-COUNT-2: optimization_barrier
// CHECK-NOT: optimization_barrier
