variable "cluster" {
  description = "Name of the cluster."
  type        = string
  default     = "prod"
}

variable "service" {
  description = "Name of the service, and of what belongs to it."
  type        = string
  default     = "checkout"
}

variable "desired_count" {
  description = "Tasks at full scale."
  type        = number
  default     = 2
}

variable "blue_image" {
  description = "Image of the blue task set; empty: there is none."
  type        = string
  default     = "public.ecr.aws/nginx/nginx:1.27"
}

variable "green_image" {
  description = "Image of the green task set; empty: there is none."
  type        = string
  default     = ""
}

variable "guardian_image" {
  description = "The guardian's image, by tag or digest."
  type        = string
}

variable "subscriptions" {
  description = "Who is told, as in { on-call = { protocol = \"email\", endpoint = \"on-call@example.com\" } }."
  type        = map(object({ protocol = string, endpoint = string }))
  default     = {}
}
