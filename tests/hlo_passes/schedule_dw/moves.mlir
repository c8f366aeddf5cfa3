// RUN: schedule-dw v100:1x8
// The weight gradient goes beside the exchange; what needs the exchange stays behind it.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<4096x1024xf32>, %g: tensor<4096x1024xf32>) -> (tensor<1024x1024xf32>, tensor<4096x1024xf32>) {
    %w = stablehlo.dot_general %g, %x, contracting_dims = [0] x [0] : (tensor<4096x1024xf32>, tensor<4096x1024xf32>) -> tensor<1024x1024xf32>
    %a = "stablehlo.all_to_all"(%g) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<4096x1024xf32>) -> tensor<4096x1024xf32>
    %y = stablehlo.dot_general %a, %w, contracting_dims = [1] x [0] : (tensor<4096x1024xf32>, tensor<1024x1024xf32>) -> tensor<4096x1024xf32>
    return %w, %y : tensor<1024x1024xf32>, tensor<4096x1024xf32>
  }
}
// CHECK: "stablehlo.all_to_all"
// CHECK-NEXT: stablehlo.dot_general %arg1, %arg0
// CHECK-NEXT: stablehlo.dot_general
