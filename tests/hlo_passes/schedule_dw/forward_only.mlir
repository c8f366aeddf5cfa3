// RUN: schedule-dw{moves=forward} v100:1x8
// A product of the forward pass goes beside its exchange; weight gradients stay in front of the
// exchange of the backward pass, where they were.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<4096x1024xf32>, %w: tensor<1024x1024xf32>, %v: tensor<1024x1024xf32>) -> (tensor<1024x1024xf32>, tensor<1024x1024xf32>, tensor<1024x1024xf32>) {
    %i = stablehlo.dot_general %x, %v, contracting_dims = [1] x [0] : (tensor<4096x1024xf32>, tensor<1024x1024xf32>) -> tensor<4096x1024xf32>
    %a = "stablehlo.all_to_all"(%x) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<4096x1024xf32>) -> tensor<4096x1024xf32>
    %h = stablehlo.dot_general %a, %w, contracting_dims = [1] x [0] : (tensor<4096x1024xf32>, tensor<1024x1024xf32>) -> tensor<4096x1024xf32>
    %s = stablehlo.add %h, %i : tensor<4096x1024xf32>
    %d = stablehlo.tanh %s : tensor<4096x1024xf32>
    %da = stablehlo.dot_general %d, %w, contracting_dims = [1] x [1] : (tensor<4096x1024xf32>, tensor<1024x1024xf32>) -> tensor<4096x1024xf32>
    %dw = stablehlo.dot_general %a, %d, contracting_dims = [0] x [0] : (tensor<4096x1024xf32>, tensor<4096x1024xf32>) -> tensor<1024x1024xf32>
    %dv = stablehlo.dot_general %x, %d, contracting_dims = [0] x [0] : (tensor<4096x1024xf32>, tensor<4096x1024xf32>) -> tensor<1024x1024xf32>
    %b = "stablehlo.all_to_all"(%da) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<4096x1024xf32>) -> tensor<4096x1024xf32>
    %du = stablehlo.dot_general %x, %b, contracting_dims = [0] x [0] : (tensor<4096x1024xf32>, tensor<4096x1024xf32>) -> tensor<1024x1024xf32>
    return %dw, %dv, %du : tensor<1024x1024xf32>, tensor<1024x1024xf32>, tensor<1024x1024xf32>
  }
}
// CHECK: "stablehlo.all_to_all"(%arg0)
// CHECK-NEXT: stablehlo.dot_general %arg0, %arg2
// CHECK-NEXT: stablehlo.dot_general
// CHECK-NEXT: stablehlo.add
// CHECK-NEXT: stablehlo.tanh
// CHECK-NEXT: stablehlo.dot_general
// CHECK-NEXT: stablehlo.dot_general {{.*}} -> tensor<1024x1024xf32>
// CHECK-NEXT: stablehlo.dot_general {{.*}} -> tensor<1024x1024xf32>
// CHECK-NEXT: "stablehlo.all_to_all"
